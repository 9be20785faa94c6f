//! The files of a folder that could be results, newest first. Which names are looked for follows from the
//! format: a harness writes other files beside its results.

use super::EmitError;
use harness::Format;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The newest files of `folder` that could be results of this format, newest first.
pub(super) fn newest(folder: &Path, format: Format) -> Result<Vec<PathBuf>, EmitError> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let (mut folders, mut left) = (vec![(folder.to_owned(), 0)], MAX_ENTRIES);
    while let Some((open, depth)) = folders.pop() {
        let failed = |source| EmitError::Io {
            what: format!("cannot look into {}", open.display()),
            source,
        };
        for entry in std::fs::read_dir(&open).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            left -= 1;
            if left == 0 {
                return Err(EmitError::TooMany {
                    path: folder.to_owned(),
                    most: MAX_ENTRIES,
                });
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < depth_of(format) {
                folders.push((path, depth + 1));
                continue;
            }
            // A link may lead to a result; what it leads to is seen when it is opened.
            let modified = path.metadata().ok().filter(|meta| meta.is_file());
            let modified = modified.and_then(|meta| meta.modified().ok());
            if let Some(modified) = modified.filter(|_| could_be(format, &name)) {
                found.push((modified, path));
            }
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(MAX_FILES);
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The names that are looked for, in words.
pub(super) fn wanted(format: Format) -> &'static str {
    match format {
        Format::Meshd => "*.json",
        Format::Inspect => "*.eval and *.json",
        Format::LmEval => "results*.json, in folders too",
        Format::Junit => "*.xml",
        Format::ExitCode => "files of any name",
    }
}

fn could_be(format: Format, name: &str) -> bool {
    match format {
        Format::Meshd => name.ends_with(".json"),
        Format::Inspect => name.ends_with(".eval") || name.ends_with(".json"),
        Format::LmEval => name.starts_with("results") && name.ends_with(".json"),
        Format::Junit => name.ends_with(".xml"),
        Format::ExitCode => true,
    }
}

/// lm-eval makes a folder for each model, whose name may have a slash.
fn depth_of(format: Format) -> u32 {
    match format {
        Format::LmEval => 3,
        Format::Meshd | Format::Inspect | Format::Junit | Format::ExitCode => 0,
    }
}

/// Most entries that are looked through.
const MAX_ENTRIES: usize = 10_000;
/// Most files that are read: those of the most suites.
const MAX_FILES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::time::Duration;

    fn make(path: &Path, second: u64) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let file = File::create(path).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    #[test]
    fn the_newest_come_first_and_only_those_that_could_be_results() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, second) in [
            ("old.eval", 1),
            ("new.json", 3),
            ("mid.eval", 2),
            (".hidden.eval", 9),
            ("notes.txt", 9),
            ("org/model/results_1.json", 5),
            ("org/model/samples_1.jsonl", 9),
        ] {
            make(&at(name), second);
        }
        std::fs::create_dir(at("a.eval")).unwrap();
        let inspect = newest(folder.path(), Format::Inspect).unwrap();
        assert_eq!(inspect, ["new.json", "mid.eval", "old.eval"].map(at));
        let lm_eval = newest(folder.path(), Format::LmEval).unwrap();
        assert_eq!(lm_eval, [at("org/model/results_1.json")]);
        let gone = newest(&at("gone"), Format::Junit).unwrap_err().to_string();
        assert!(gone.contains("cannot look into"), "{gone}");
    }

    #[test]
    fn a_folder_has_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..MAX_ENTRIES {
            File::create(folder.path().join(n.to_string())).unwrap();
        }
        let error = newest(folder.path(), Format::Junit).unwrap_err();
        assert!(matches!(error, EmitError::TooMany { .. }), "{error}");
    }
}
