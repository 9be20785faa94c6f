//! Reads a result from a file whenever the file changes: the harness writes, the node looks.

use super::{Emission, EmitError, Health, MAX_RESULT, parse};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

pub(super) async fn run(path: PathBuf, out: mpsc::Sender<Emission>) {
    let mut health = Health::new();
    let mut seen = None;
    loop {
        match changed(&path, &mut seen).await {
            Ok(Some(emission)) => {
                health.succeeded();
                if out.send(emission).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => health.failed(&error),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = out.closed() => return,
        }
    }
}

/// The file's content, if its time or size is not the one in `seen`.
async fn changed(
    path: &Path,
    seen: &mut Option<(SystemTime, u64)>,
) -> Result<Option<Emission>, EmitError> {
    let failed = |source| EmitError::Io {
        what: format!("cannot read {}", path.display()),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let meta = file.metadata().await.map_err(failed)?;
    let stamp = (meta.modified().map_err(failed)?, meta.len());
    if *seen == Some(stamp) {
        return Ok(None);
    }
    // Marked as seen even when it cannot be used: it is read again when it is written again.
    *seen = Some(stamp);
    let mut bytes = Vec::new();
    file.take(MAX_RESULT as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(failed)?;
    parse(&bytes).map(Some)
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_once_per_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let mut seen = None;
        assert!(
            changed(&path, &mut seen).await.is_err(),
            "a missing file is an error, not a panic"
        );
        std::fs::write(
            &path,
            r#"{"harness":"h","suite":"s","suiteVersion":"1","overall":0.5}"#,
        )
        .unwrap();
        assert!(changed(&path, &mut seen).await.unwrap().is_some());
        assert!(changed(&path, &mut seen).await.unwrap().is_none());
        std::fs::write(
            &path,
            r#"{"harness":"h","suite":"s","suiteVersion":"1","overall":0.75}"#,
        )
        .unwrap();
        assert!(changed(&path, &mut seen).await.unwrap().is_some());
    }
}
