//! Runs a program and reads one result from its standard output. Exit 0: the output counts.

use super::{Emission, EmitError, Health, MAX_RESULT, parse};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;

pub(super) async fn run(
    argv: Vec<String>,
    limit: Duration,
    every: Duration,
    out: mpsc::Sender<Emission>,
) {
    let mut health = Health::new();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = out.closed() => return,
        }
        match once(&argv, limit).await {
            Ok(emission) => {
                health.succeeded();
                if out.send(emission).await.is_err() {
                    return;
                }
            }
            Err(error) => health.failed(&error),
        }
    }
}

async fn once(argv: &[String], limit: Duration) -> Result<Emission, EmitError> {
    let run = async {
        let (program, arguments) = argv
            .split_first()
            .map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        let failed = |source| EmitError::Io {
            what: format!("cannot run `{program}`"),
            source,
        };
        let mut command = Command::new(program);
        // Settings of ours are nothing to a benchmark, and MESHD_JOIN may be a token.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let limit = MAX_RESULT as u64 + 1;
            stdout
                .take(limit)
                .read_to_end(&mut output)
                .await
                .map_err(failed)?;
        }
        if output.len() > MAX_RESULT {
            return Err(EmitError::TooLarge);
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            parse(&output)
        } else {
            Err(EmitError::Failed(status))
        }
    };
    tokio::time::timeout(limit, run)
        .await
        .map_err(|_| EmitError::Timeout(limit))?
}

fn is_ours(variable: &std::ffi::OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"MESHD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(String::from).to_vec()
    }

    #[tokio::test]
    async fn the_output_of_a_program_is_read_and_its_failures_are_told_apart() {
        let limit = Duration::from_secs(60);
        let good = r#"echo '{"harness":"h","suite":"s","suiteVersion":"1","overall":0.5}'"#;
        assert!(
            matches!(once(&sh(good), limit).await, Ok(Emission::Run(run)) if run.overall == 0.5)
        );
        assert!(matches!(
            once(&sh("exit 3"), limit).await,
            Err(EmitError::Failed(_))
        ));
        assert!(matches!(
            once(&sh("head -c 70000 /dev/zero"), limit).await,
            Err(EmitError::TooLarge)
        ));
        assert!(matches!(
            once(&["/no/such".into()], limit).await,
            Err(EmitError::Io { .. })
        ));
        let hung = once(&sh("exec sleep 600"), Duration::from_millis(50)).await;
        assert!(matches!(hung, Err(EmitError::Timeout(_))));
    }
}
