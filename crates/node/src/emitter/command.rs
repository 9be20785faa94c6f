//! Runs a program and reads a result from its standard output, or from its exit code. Exit 0: the output
//! counts, whoever else holds it open. Nothing that the program started outlives its run.
//!
//! The file is long because half of it is its tests.

use super::children::{Children, Leader};
use super::{BenchmarkUser, Desk, EmitError, Reading};
use crate::io::clock;
use agent::Emission;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::Read as _;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program, and how its result is read.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) argv: Vec<String>,
    /// The time from the beginning of a run to that of the next.
    pub(super) every: Duration,
    /// After this long it is killed.
    pub(super) limit: Duration,
    pub(super) user: Option<BenchmarkUser>,
    pub(super) reading: Reading,
}

impl Program {
    /// Runs it again and again, until the node stops.
    pub(super) fn run(&self, desk: &Desk) {
        let mut children = Children::adopt(self.user.as_ref());
        loop {
            let begun = clock::boot();
            match self.once(&mut children, desk) {
                None => return,
                Some(Ok(emissions)) => {
                    desk.health.succeeded(emissions.len());
                    if !desk.emit(emissions) {
                        return;
                    }
                }
                Some(Err(error)) => desk.health.failed(&error, true),
            }
            let passed = clock::boot().saturating_sub(begun);
            if desk.stops_within(self.every.saturating_sub(passed)) {
                return;
            }
        }
    }

    /// One run; `None`: the node stops.
    fn once(
        &self,
        children: &mut Children,
        desk: &Desk,
    ) -> Option<Result<Vec<Emission>, EmitError>> {
        let mut leader = match children.start(&mut self.command()) {
            Ok(leader) => leader,
            Err(source) => return Some(Err(self.failed(source))),
        };
        let result = self.follow(&mut leader, desk);
        children.end(leader);
        result.transpose()
    }

    fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name());
        // Settings of ours are nothing to a benchmark, and MESHD_JOIN may be a token.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        let stdout = match self.reading.is_of_exit_code() {
            // The daemon's log has what it says, as for every plugin of this contract.
            true => Stdio::null(),
            false => Stdio::piped(),
        };
        command
            .args(self.argv.iter().skip(1))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::inherit());
        if let Some(user) = &self.user {
            user.take_over(&mut command);
        }
        command
    }

    /// Waits for the program's end, and for a result.
    fn follow(&self, leader: &mut Leader, desk: &Desk) -> Result<Option<Vec<Emission>>, EmitError> {
        let failed = |source| self.failed(source);
        let begun = clock::boot();
        let (deadline, due) = (
            begun.saturating_add(self.limit),
            begun.saturating_add(self.every),
        );
        let mut is_late = false;
        let descriptor = leader.descriptor();
        let most = self.reading.limit();
        let mut output = Output::new(leader.take_stdout(), most).map_err(failed)?;
        loop {
            // First whether it has ended, then what it has written: nothing that it wrote is missed.
            let ended = leader.ended().map_err(failed)?;
            output.read().map_err(failed)?;
            if output.bytes.len() > most {
                return Err(EmitError::TooLarge(most));
            }
            let left = deadline.saturating_sub(clock::boot());
            match self.result(ended, &mut output) {
                Some(result) => return result.map(Some),
                None if !left.is_zero() => {}
                // The program has ended, and those that it left behind never wrote the rest.
                None if ended.is_some() => return self.parse(&output).map(Some),
                None => return Err(EmitError::Timeout(self.limit)),
            }
            // Until it is killed, nothing else says that no result comes.
            let until_due = due.saturating_sub(clock::boot());
            if until_due.is_zero() && !std::mem::replace(&mut is_late, true) {
                desk.health.late(&EmitError::Late(self.every));
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
            let wait = if is_late { wait } else { wait.min(until_due) };
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
    fn result(
        &self,
        ended: Option<ExitStatus>,
        output: &mut Output,
    ) -> Option<Result<Vec<Emission>, EmitError>> {
        let status = ended?;
        if self.reading.is_of_exit_code() {
            let code = status.code().ok_or(EmitError::Failed(status));
            let of_code = |code| self.reading.exit_code(self.name(), code);
            return Some(code.and_then(|code| of_code(code).map_err(EmitError::Output)));
        }
        if !status.success() {
            return Some(Err(EmitError::Failed(status)));
        }
        if !output.is_worth_a_look() {
            return None;
        }
        match self.parse(output) {
            Err(error) if error.may_be_half() && output.pipe.is_some() => None,
            result => Some(result),
        }
    }

    fn parse(&self, output: &Output) -> Result<Vec<Emission>, EmitError> {
        let read = self.reading.output(self.name(), &output.bytes);
        read.map_err(EmitError::Output)
    }

    fn failed(&self, source: std::io::Error) -> EmitError {
        EmitError::Io {
            what: format!("cannot run `{}`", self.name()),
            source,
        }
    }
}

/// The standard output of a program.
#[derive(Debug)]
struct Output {
    /// `None`: all those that held it have closed it.
    pipe: Option<ChildStdout>,
    bytes: Vec<u8>,
    /// How much a result may have.
    most: usize,
    /// How much there was when it was looked at last.
    looked_at: usize,
}

impl Output {
    fn new(pipe: Option<ChildStdout>, most: usize) -> std::io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
            most,
            looked_at: 0,
        })
    }

    /// Whether to look for a result. One that is large is not looked at with every piece that comes: that would
    /// take time with the square of its length.
    fn is_worth_a_look(&mut self) -> bool {
        let len = self.bytes.len();
        let is_worth = self.pipe.is_none() || len <= SMALL || len >= self.looked_at * 2;
        if is_worth {
            self.looked_at = len;
        }
        is_worth
    }

    /// Reads what is there, and at most a byte more than a result may have.
    fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            let room = (self.most + 1).saturating_sub(self.bytes.len());
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

fn is_ours(variable: &std::ffi::OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"MESHD_")
}

/// Where the kernel does not tell of a program's end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So much output is looked at as often as there is more of it.
const SMALL: usize = 64 << 10;
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use super::super::health::Reporter;
    use super::super::{Emitter, start};
    use super::*;
    use harness::{Fault, Format};
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};
    use tokio::sync::mpsc;

    const GOOD: &str = r#"echo '{"harness":"h","suite":"s","suiteVersion":"1","overall":0.5}'"#;
    const LONG: Duration = Duration::from_secs(60);

    /// Each ends all benchmarks of this process: one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(String::from).to_vec()
    }

    fn program(argv: &[String], limit: Duration) -> Program {
        Program {
            argv: argv.to_vec(),
            every: LONGEST_WAIT,
            limit,
            user: None,
            reading: Reading::default(),
        }
    }

    fn once(program: &Program) -> Result<Vec<Emission>, EmitError> {
        let (stop, _stop) = std::io::pipe().unwrap();
        let (out, _emissions) = mpsc::channel(1);
        let (health, _seen) = Reporter::new();
        let desk = Desk { out, health, stop };
        let mut children = Children::adopt(program.user.as_ref());
        program.once(&mut children, &desk).expect("nobody stops it")
    }

    #[test]
    fn a_run_that_outlasts_its_interval_is_told_before_it_is_killed() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (stop, _stop) = std::io::pipe().unwrap();
        let (out, _emissions) = mpsc::channel(1);
        let (health, seen) = Reporter::new();
        let desk = Desk { out, health, stop };
        let slow = Program {
            every: Duration::from_millis(20),
            ..program(&sh("sleep 600"), Duration::from_millis(200))
        };
        let mut children = Children::adopt(None);
        assert!(
            slow.once(&mut children, &desk)
                .is_some_and(|it| it.is_err())
        );
        // The end of the run is told by its caller.
        let failing = seen.borrow().failing.clone().unwrap();
        assert!(
            failing.cause.contains("has run for over 20ms"),
            "{failing:?}"
        );
        assert_eq!(seen.borrow().failed, 0, "it is no failed run yet");
    }

    fn run_once(argv: &[String], limit: Duration) -> Result<Emission, EmitError> {
        once(&program(argv, limit)).map(|mut emissions| emissions.remove(0))
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
            Err(EmitError::TooLarge(_))
        ));
        assert!(matches!(
            run_once(&["/no/such".into()], LONG),
            Err(EmitError::Io { .. })
        ));
        assert!(matches!(
            run_once(&sh("exit 0"), LONG),
            Err(EmitError::Output(Fault::Empty))
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
        assert!(matches!(run_once(&argv, LONG), Err(EmitError::TooLarge(_))));
        assert_eq!(survivors(folder.path()), [""; 0]);
    }

    #[test]
    fn nobody_outlives_the_node() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let emitter = Emitter::Command {
            argv: littering(folder.path(), "exec sleep 600"),
            timeout: LONG,
            user: None,
            reading: Reading::default(),
        };
        let started = start(emitter, LONG).unwrap();
        for _ in 0..6_000 {
            if ["group", "session", "orphan"]
                .iter()
                .all(|name| folder.path().join(name).exists())
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(started.emissions);
        started.running.stop();
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

    #[test]
    fn an_exit_code_is_a_result_whatever_is_printed_and_whoever_holds_the_output() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |script: &str| {
            let mut program = program(&sh(script), LONG);
            program.reading.format = Format::ExitCode;
            once(&program)
        };
        for (script, expected) in [
            ("echo all is well; exit 0", 1.0),
            ("echo the disk is full; sleep 600 & exit 1", 0.0),
        ] {
            let Emission::Run(run) = of(script).unwrap().remove(0) else {
                panic!("a run")
            };
            assert_eq!((run.overall, &*run.suite), (Some(expected), "sh"));
        }
        let unknown = of("exit 2").unwrap_err().to_string();
        assert!(unknown.contains("`exit code` is 2: unknown"), "{unknown}");
        assert!(matches!(of("kill -9 $$"), Err(EmitError::Failed(_))));
    }

    #[test]
    fn a_program_may_print_what_a_harness_writes() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../harness/fixtures");
        for (format, file, runs) in [
            (Format::Inspect, "inspect/refusal.eval", 1),
            (Format::LmEval, "lm-eval/results.json", 3),
            (Format::Junit, "junit/node.xml", 1),
        ] {
            let mut program = program(&sh(&format!("cat {fixtures}/{file}")), LONG);
            program.reading.format = format;
            assert_eq!(once(&program).unwrap().len(), runs, "{file}");
        }
    }

    #[test]
    fn another_user_runs_without_rights_and_without_a_way_to_the_daemons_files() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let nobody = BenchmarkUser::find("nobody").unwrap();
        let folder = tempfile::tempdir().unwrap();
        if nobody.check(folder.path()).is_err() {
            use std::io::Write as _;
            let told = writeln!(
                std::io::stderr(),
                "NOT RUN: only root can become another user"
            );
            return told.unwrap();
        }
        let secret = folder.path().join("identity.key");
        std::fs::write(&secret, "secret").unwrap();
        // As the state directory is.
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(folder.path(), own).unwrap();
        let script = format!(
            "test $(id -u) = $(id -u nobody) || exit 11
             test \"$(id -G)\" = \"$(id -G nobody)\" || exit 12
             test $HOME = $(getent passwd nobody | cut -d: -f6) || exit 13
             grep -q 'CapPrm:.0*$' /proc/self/status && grep -q 'CapAmb:.0*$' /proc/self/status || exit 14
             grep -q 'NoNewPrivs:.1' /proc/self/status || exit 15
             cat {} 2>/dev/null && exit 16
             kill -0 $PPID 2>/dev/null && exit 17
             setsid sleep 600 & (setsid sleep 600 &)
             {GOOD}",
            secret.display()
        );
        let argv = sh(&script);
        let told = std::thread::spawn(move || {
            crate::io::rights::reduce(crate::io::rights::Keep::BENCHMARK);
            let mut program = program(&argv, LONG);
            program.user = Some(nobody);
            once(&program).map(|emissions| emissions.len())
        });
        let told = told.join().unwrap();
        assert!(matches!(told, Ok(1)), "{told:?}");
        let left = Command::new("pgrep")
            .args(["-u", "nobody", "sleep"])
            .output();
        assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "");
    }
}
