//! Whether something keeps this machine's wall clock, as the kernel knows it.

use std::io;

/// Whether a time daemon has set the clock lately, and says that it is right (`adjtimex(2)`). Changes nothing.
///
/// # Errors
/// When the system call is forbidden.
pub fn is_kept() -> io::Result<bool> {
    #[expect(
        unsafe_code,
        reason = "a struct of integers, for which zeros are values; with `modes` 0 the call only reads"
    )]
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(timex.status & libc::STA_UNSYNC == 0 && state != libc::TIME_ERROR)
}
