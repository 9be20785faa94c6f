//! Files as harnesses, editors and operators leave them.

use super::*;
use harness::{Format, Labels};
use std::fs::FileTimes;

/// A file or a folder that is watched, of which a test makes a new state before each look.
struct Bench {
    folder: tempfile::TempDir,
    watch: Watch,
    place: Place,
    reading: Reading,
}

fn reading(format: Format) -> Reading {
    Reading {
        format,
        labels: Labels::default(),
    }
}

impl Bench {
    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            watch: Watch::default(),
            place: Place::File(folder.path().join("result.json")),
            reading: reading(Format::Meshd),
            folder,
        }
    }

    fn folder(format: Format) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            watch: Watch::default(),
            place: Place::Folder(folder.path().to_owned()),
            reading: reading(format),
            folder,
        }
    }

    /// Replaces a file in one step, with a time of our choice.
    fn put(&self, name: &str, content: &[u8], second: u64) {
        let (new, path) = (
            self.folder.path().join("new"),
            self.folder.path().join(name),
        );
        std::fs::write(&new, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let file = File::options().write(true).open(&new).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        std::fs::rename(&new, path).unwrap();
    }

    /// A look, in words: one for each emission, and one for the trouble.
    fn look(&mut self) -> String {
        let Looked { emissions, trouble } = self.watch.look(&self.place, &self.reading);
        let mut words: Vec<String> = emissions
            .iter()
            .map(|emission| match emission {
                Emission::Filed(run) => match run.overall {
                    Some(overall) => format!("{overall}"),
                    None => run.suite.clone(),
                },
                Emission::Envelope(_) => "envelope".to_owned(),
                Emission::Run(_) => panic!("a run from a file says so"),
            })
            .collect();
        words.extend(match trouble {
            Trouble::None => None,
            Trouble::Unsettled => Some("unsettled".to_owned()),
            Trouble::Failed(error) => Some(error.to_string()),
        });
        words.join(", ")
    }
}

fn result(overall: &str) -> Vec<u8> {
    of_suite("s", overall)
}

fn of_suite(suite: &str, overall: &str) -> Vec<u8> {
    format!(r#"{{"harness":"h","suite":"{suite}","suiteVersion":"1","overall":{overall}}}"#).into()
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = env!("CARGO_MANIFEST_DIR");
    std::fs::read(format!("{folder}/../harness/fixtures/{name}")).unwrap()
}

#[test]
fn a_file_is_read_once_per_change_whatever_its_time_and_size_say() {
    let mut bench = Bench::file();
    let gone = bench.look();
    assert!(gone.contains("No such file"), "{gone}");
    bench.put("result.json", &result("0.5"), 1_000);
    assert_eq!(bench.look(), "0.5");
    assert_eq!(bench.look(), "");
    bench.put("result.json", &result("0.7"), 1_000);
    assert_eq!(bench.look(), "0.7");
    bench.put("result.json", &result("0.7"), 1_000);
    assert_eq!(bench.look(), "", "restored from a copy");
    bench.put("result.json", &result("0.7"), 2_000);
    assert_eq!(bench.look(), "", "touched: the same run");
    std::fs::remove_file(bench.folder.path().join("result.json")).unwrap();
    assert!(bench.look().contains("No such file"));
    bench.put("result.json", &result("0.9"), 1_000);
    assert_eq!(bench.look(), "0.9");
}

#[test]
fn a_result_without_a_time_is_as_old_as_its_file() {
    let mut bench = Bench::file();
    bench.put("result.json", &result("0.5"), 1_000);
    let looked = bench.watch.look(&bench.place, &bench.reading);
    let [Emission::Filed(run)] = &looked.emissions[..] else {
        panic!("{looked:?}");
    };
    assert_eq!(run.finished_at.as_second(), 1_000);
}

#[test]
fn a_file_that_is_being_written_is_no_failure_until_it_stays_so() {
    let mut bench = Bench::file();
    let whole = result("0.5");
    bench.put("result.json", b"", 1_000);
    assert_eq!(bench.look(), "unsettled");
    bench.put("result.json", &whole[..30], 1_000);
    assert_eq!(bench.look(), "unsettled");
    let stays = bench.look();
    assert!(stays.contains("result.json: no JSON"), "{stays}");
    assert_eq!(bench.look(), stays);
    bench.put("result.json", &whole, 1_000);
    assert_eq!(bench.look(), "0.5");
    bench.put("result.json", &vec![b' '; 70_000], 1_000);
    bench.look();
    assert!(bench.look().contains("over 65536 bytes"));
}

#[test]
fn a_run_from_the_future_is_refused_until_its_time_has_come() {
    let mut bench = Bench::file();
    let now = clock::wall().as_second();
    let at = |ahead: i64| {
        let finished = jiff::Timestamp::from_second(now + ahead).unwrap();
        let run = String::from_utf8(result("0.5")).unwrap();
        run.replace(
            "\"overall\"",
            &format!("\"finishedAt\":\"{finished}\",\"overall\""),
        )
    };
    bench.put("result.json", at(3_600).as_bytes(), 1_000);
    bench.look();
    let refused = bench.look();
    assert!(
        refused.contains("s in the future: check the clocks"),
        "{refused}"
    );
    bench.put("result.json", at(-1).as_bytes(), 1_000);
    assert_eq!(bench.look(), "0.5");
}

#[test]
fn only_a_regular_file_is_opened_for_a_result() {
    let mut bench = Bench::file();
    let folder = bench.folder.path().to_owned();
    let pipe = folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (path, expected) in [
        (pipe.as_path(), "a named pipe, not a regular file"),
        (folder.as_path(), "a directory, not a regular file"),
        (Path::new("/dev/zero"), "a device, not a regular file"),
    ] {
        let path = path.to_owned();
        bench.place = Place::File(path);
        let error = bench.look();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn of_a_folder_the_newest_file_of_each_suite_counts() {
    let mut bench = Bench::folder(Format::Meshd);
    let empty = bench.look();
    assert!(
        empty.contains("no finished result yet; looked for *.json"),
        "{empty}"
    );
    bench.put("a1.json", &of_suite("a", "0.1"), 1_000);
    bench.put("b1.json", &of_suite("b", "0.2"), 2_000);
    bench.put("a2.json", &of_suite("a", "0.3"), 3_000);
    assert_eq!(bench.look(), "0.2, 0.3", "the newest is handed over last");
    assert_eq!(bench.look(), "");
    bench.put("b2.json", &of_suite("b", "0.4"), 4_000);
    assert_eq!(bench.look(), "0.4");
    bench.put("old.json", &of_suite("b", "0.9"), 500);
    assert_eq!(bench.look(), "", "an older file is no news of its suite");
}

#[test]
fn a_log_that_is_being_written_hides_no_finished_one_and_a_failed_run_is_told() {
    let mut bench = Bench::folder(Format::Inspect);
    let log = fixture("inspect/refusal.eval");
    bench.put("1.eval", &log, 1_000);
    assert_eq!(bench.look(), "refusal");
    bench.put("2.eval", &log[..log.len() / 2], 2_000);
    for _ in 0..3 {
        assert_eq!(bench.look(), "", "for hours, if it has to be");
    }
    bench.put("2.eval", &fixture("inspect/error.eval"), 2_000);
    bench.look();
    let failed = bench.look();
    assert!(failed.contains("2.eval: `status` is \"error\""), "{failed}");
    bench.put("3.eval", &fixture("inspect/epochs.eval"), 3_000);
    assert_eq!(bench.look(), "refusal");
    assert_eq!(bench.look(), "", "a newer run has succeeded");
}

#[test]
fn a_file_of_several_suites_gives_a_run_for_each_and_a_pipe_in_a_folder_is_passed_over() {
    let mut bench = Bench::folder(Format::LmEval);
    let model = bench.folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let pipe = model.join("results_pipe.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    bench.put(
        "model/results_1.json",
        &fixture("lm-eval/results.json"),
        1_795_700_000,
    );
    assert_eq!(
        bench.look(),
        "meshd_choice, meshd_generate, meshd_perplexity"
    );
    assert_eq!(bench.look(), "");
}
