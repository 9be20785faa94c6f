//! Where programs are.

use crate::rights;
use std::path::{Path, PathBuf};

/// The file that `program` stands for, as `execvp(3)` finds it: a name with a slash is a path, any other one is looked
/// for in `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = Path::new(program);
        return rights::may_run(path).then(|| path.to_owned());
    }
    let paths = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&paths).map(|folder| folder.join(program));
    candidates.find(|path| rights::may_run(path))
}

/// The same for a program of the system's administration, which an ordinary user's `PATH` may lack.
#[must_use]
pub fn find_for_root(program: &str) -> Option<PathBuf> {
    find(program).or_else(|| {
        let mut folders = ["/usr/sbin", "/sbin"].iter();
        folders.find_map(|folder| find(&format!("{folder}/{program}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_and_a_path_is_not() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some("/bin/sh".into()));
        for none in ["no-such-program", "/etc/passwd", "/etc", "./sh"] {
            assert_eq!(find(none), None, "{none}");
        }
    }
}
