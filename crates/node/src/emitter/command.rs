//! Runs a program and reads one result from its standard output. Exit 0: the output counts, whoever else
//! holds it open. Nothing that the program started outlives its run.

use super::children::{Children, Leader};
use super::{Desk, Emission, EmitError, Health, MAX_RESULT, parse};
use crate::io::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::Read as _;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Runs the program again and again, until the node stops.
pub(super) fn run(argv: &[String], limit: Duration, every: Duration, desk: &Desk) {
    let (mut health, mut children) = (Health::new(), Children::adopt());
    loop {
        let begun = clock::boot();
        match once(argv, limit, &mut children, desk) {
            None => return,
            Some(Ok(emission)) => {
                health.succeeded();
                if !desk.emit(emission) {
                    return;
                }
            }
            Some(Err(error)) => health.failed(&error),
        }
        let passed = clock::boot().saturating_sub(begun);
        if desk.stops_within(every.saturating_sub(passed)) {
            return;
        }
    }
}

/// One run; `None`: the node stops.
fn once(
    argv: &[String],
    limit: Duration,
    children: &mut Children,
    desk: &Desk,
) -> Option<Result<Emission, EmitError>> {
    let mut leader = match children.start(&mut command(argv)) {
        Ok(leader) => leader,
        Err(source) => return Some(Err(failed(argv)(source))),
    };
    let result = follow(argv, limit, &mut leader, desk);
    children.end(leader);
    result.transpose()
}

fn command(argv: &[String]) -> Command {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    // Settings of ours are nothing to a benchmark, and MESHD_JOIN may be a token.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command
        .args(argv.iter().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

/// Waits for the program's end, and for a result.
fn follow(
    argv: &[String],
    limit: Duration,
    leader: &mut Leader,
    desk: &Desk,
) -> Result<Option<Emission>, EmitError> {
    let failed = failed(argv);
    let deadline = clock::boot().saturating_add(limit);
    let descriptor = leader.descriptor();
    let mut output = Output::new(leader.take_stdout()).map_err(&failed)?;
    loop {
        // First whether it has ended, then what it has written: nothing that it wrote is missed.
        let ended = leader.ended().map_err(&failed)?;
        output.read().map_err(&failed)?;
        if output.bytes.len() > MAX_RESULT {
            return Err(EmitError::TooLarge);
        }
        let left = deadline.saturating_sub(clock::boot());
        match result(ended, &output) {
            Some(result) => return result.map(Some),
            None if !left.is_zero() => {}
            // The program has ended, and those that it left behind never wrote the rest.
            None if ended.is_some() => return parse(&output.bytes).map(Some),
            None => return Err(EmitError::Timeout(limit)),
        }
        let mut watched = vec![PollFd::new(&desk.stop, PollFlags::IN)];
        let pipe = output.pipe.as_ref();
        watched.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let wait = match (&descriptor, ended) {
            (Ok(descriptor), None) => {
                watched.push(PollFd::new(descriptor, PollFlags::IN));
                left
            }
            (Err(_), None) => left.min(LOOK_EVERY),
            (_, Some(_)) => left,
        };
        wait_for(&mut watched, wait).map_err(|errno| failed(errno.into()))?;
        if watched
            .first()
            .is_some_and(|stop| !stop.revents().is_empty())
        {
            return Ok(None);
        }
    }
}

/// The result of a program that has ended in such a way, if that can be said already. A child of it may still
/// be writing, as `tee` does behind a shell that does not wait; so only a whole result counts at once.
fn result(ended: Option<ExitStatus>, output: &Output) -> Option<Result<Emission, EmitError>> {
    let status = ended?;
    if !status.success() {
        return Some(Err(EmitError::Failed(status)));
    }
    match parse(&output.bytes) {
        Err(EmitError::Empty | EmitError::Parse(_)) if output.pipe.is_some() => None,
        result => Some(result),
    }
}

/// The standard output of a program.
#[derive(Debug)]
struct Output {
    /// `None`: all those that held it have closed it.
    pipe: Option<ChildStdout>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(pipe: Option<ChildStdout>) -> std::io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    /// Reads what is there, and at most a byte more than a result may have.
    fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            let room = (MAX_RESULT + 1).saturating_sub(self.bytes.len());
            if room == 0 {
                return Ok(());
            }
            let chunk = chunk.get_mut(..room.min(4096)).unwrap_or_default();
            match pipe.read(chunk) {
                Ok(0) => self.pipe = None,
                Ok(count) => self
                    .bytes
                    .extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Waits until one of them is ready, at most for `limit`.
pub(super) fn wait_for(watched: &mut [PollFd<'_>], limit: Duration) -> Result<(), Errno> {
    // A day is as good as for ever here, and every kernel takes it.
    let limit = Timespec::try_from(limit.min(LONGEST_WAIT)).ok();
    match poll(watched, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn failed(argv: &[String]) -> impl Fn(std::io::Error) -> EmitError {
    let program = argv.first().map_or("", String::as_str);
    move |source| EmitError::Io {
        what: format!("cannot run `{program}`"),
        source,
    }
}

fn is_ours(variable: &std::ffi::OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"MESHD_")
}

/// Where the kernel does not tell of a program's end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use super::super::{Emitter, start};
    use super::*;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};
    use tokio::sync::{mpsc, watch};

    const GOOD: &str = r#"echo '{"harness":"h","suite":"s","suiteVersion":"1","overall":0.5}'"#;
    const LONG: Duration = Duration::from_secs(60);

    /// Each ends all benchmarks of this process: one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(String::from).to_vec()
    }

    fn run_once(argv: &[String], limit: Duration) -> Result<Emission, EmitError> {
        let (stop, _stop) = std::io::pipe().unwrap();
        let (out, _emissions) = mpsc::channel(1);
        let desk = Desk { out, stop };
        once(argv, limit, &mut Children::adopt(), &desk).expect("nobody stops it")
    }

    /// A script that leaves processes behind: in its group, in a session of its own, and as nobody's child.
    /// Each writes its number into `folder` and keeps standard output open.
    fn littering(folder: &Path, last: &str) -> Vec<String> {
        let stay = |name: &str| {
            let file = folder.join(name);
            format!(
                "sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 600'",
                file.display()
            )
        };
        let all = ["group", "session", "orphan"].map(|name| folder.join(name));
        let there = all
            .map(|file| format!("test -e {}", file.display()))
            .join(" && ");
        sh(&format!(
            "{} & setsid {} & (setsid {} &) ; until {there}; do sleep 0.01; done; {last}",
            stay("group"),
            stay("session"),
            stay("orphan"),
        ))
    }

    /// Of those that [`littering`] left behind, the ones that are still there, zombies too.
    fn survivors(folder: &Path) -> Vec<String> {
        let files = ["group", "session", "orphan"].map(|name| folder.join(name));
        let ids = files.map(|file| {
            std::fs::read_to_string(file)
                .expect("it ran")
                .trim()
                .to_owned()
        });
        let is_there = |id: &String| Path::new(&format!("/proc/{id}")).exists();
        ids.into_iter().filter(is_there).collect()
    }

    #[test]
    fn the_output_of_a_program_is_read_and_its_failures_are_told_apart() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            matches!(run_once(&sh(GOOD), LONG), Ok(Emission::Run(run)) if run.overall == Some(0.5))
        );
        // The result of one that the program leaves behind, as it would be with `tee`.
        let late = format!("(sleep 0.1; {GOOD}) & exit 0");
        assert!(matches!(run_once(&sh(&late), LONG), Ok(Emission::Run(_))));
        assert!(matches!(
            run_once(&sh("sleep 600 & exit 3"), LONG),
            Err(EmitError::Failed(_))
        ));
        assert!(matches!(
            run_once(&sh("cat /dev/zero"), LONG),
            Err(EmitError::TooLarge)
        ));
        assert!(matches!(
            run_once(&["/no/such".into()], LONG),
            Err(EmitError::Io { .. })
        ));
        assert!(matches!(
            run_once(&sh("exit 0"), LONG),
            Err(EmitError::Empty)
        ));
        let short = Duration::from_millis(50);
        let hung = run_once(&sh("exec sleep 600"), short);
        assert!(matches!(hung, Err(EmitError::Timeout(_))));
        let closed = run_once(&sh("exec sleep 600 >&-"), short);
        assert!(matches!(closed, Err(EmitError::Timeout(_))));
    }

    #[test]
    fn a_result_counts_whoever_holds_the_output_and_nobody_outlives_the_run() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let result = run_once(&littering(folder.path(), GOOD), LONG);
        assert!(matches!(result, Ok(Emission::Run(_))), "{result:?}");
        assert_eq!(survivors(folder.path()), [""; 0]);
    }

    #[test]
    fn nobody_outlives_a_program_that_is_killed() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        // Its time is over as soon as all are there.
        let argv = littering(folder.path(), "exec head -c 100000 /dev/zero");
        assert!(matches!(run_once(&argv, LONG), Err(EmitError::TooLarge)));
        assert_eq!(survivors(folder.path()), [""; 0]);
    }

    #[test]
    fn nobody_outlives_the_node() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let emitter = Emitter::Command {
            argv: littering(folder.path(), "exec sleep 600"),
            timeout: LONG,
        };
        let (_mean, mean) = watch::channel(None);
        let (out, emissions) = mpsc::channel(1);
        let running = start(emitter, LONG, mean, out).unwrap();
        for _ in 0..6_000 {
            if ["group", "session", "orphan"]
                .iter()
                .all(|name| folder.path().join(name).exists())
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(emissions);
        running.stop();
        assert_eq!(survivors(folder.path()), [""; 0]);
    }

    #[test]
    fn other_processes_of_the_daemon_are_left_alone() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // As `nft` is run, and as what a container's start script leaves behind in front of a daemon.
        let mut own = Command::new("sleep").arg("600").spawn().unwrap();
        let mut before = Command::new("setsid")
            .args(["sleep", "600"])
            .spawn()
            .unwrap();
        // The clock of /proc goes in steps of 10 ms.
        std::thread::sleep(Duration::from_millis(30));
        assert!(run_once(&sh(GOOD), LONG).is_ok());
        for other in [&mut own, &mut before] {
            assert!(other.try_wait().unwrap().is_none(), "it runs");
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
}
