//! Benchmarks as they come: programs that leave others behind, and files that are none, or change unseen.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use tests::harness::{Mesh, poll};
use wire::admin::Membership;

#[test]
fn a_benchmark_that_leaves_children_behind_counts_and_none_outlives_it_or_the_node() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let hang = folder.path().join("hang");
    // By which this test's processes are known.
    let sleep = format!("sleep 1000.{}", std::process::id());
    let script = format!(
        "{sleep} & setsid {sleep} & (setsid {sleep} &); test -e {hang} && exec {sleep}; \
         echo '{result}'",
        hang = hang.display(),
        result = result(0.9),
    );
    let builder = Mesh::builder().nodes(1).probation_epochs(0);
    let mut mesh = builder
        .node_setting("node-a", "emitter", "\"command\"")
        .node_setting(
            "node-a",
            "benchmark_command",
            format!("[\"sh\", \"-c\", {script:?}]"),
        )
        .prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.wait_until_members(&["node-a"]);
    mesh.wait_until("several runs count", |mesh| {
        let events = mesh.events();
        events
            .iter()
            .filter(|it| it.kind == "evidence_accepted")
            .count()
            >= 3
    });
    mesh.wait_until("none is left between two runs", |_| alive(&sleep) == 0);
    std::fs::write(&hang, "").expect("the folder is ours");
    mesh.wait_until("the program hangs beside all that it started", |_| {
        alive(&sleep) == 4
    });
    assert_eq!(mesh.stop("node-a").code(), Some(0));
    assert!(
        poll(Duration::from_secs(5), || alive(&sleep) == 0),
        "all are ended"
    );
}

#[test]
fn a_pipe_in_place_of_a_file_stops_nothing_and_a_file_is_read_whenever_its_content_changes() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let path = folder.path().join("result.json");
    let mkfifo = || {
        let _ = std::fs::remove_file(&path);
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()));
    };
    mkfifo();
    let builder = Mesh::builder().nodes(1).probation_epochs(0);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .node_setting("node-a", "emitter", "\"file\"")
        .node_setting(
            "node-a",
            "benchmark_file",
            format!("{:?}", path.display().to_string()),
        )
        .prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.wait_until("it says what is there", |mesh| {
        mesh.log("node-a").contains("a named pipe")
    });
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    // The file's time says nothing of a run that says itself when it finished.
    let finished = |overall| {
        let now = jiff::Timestamp::now();
        let run = result(overall).replace(
            "\"overall\"",
            &format!("\"finishedAt\":\"{now}\",\"overall\""),
        );
        format!("\u{feff}{run}\r\n")
    };
    replace(&path, finished(0.9).as_bytes(), then);
    mesh.wait_until_membership("node-a", Membership::Allowed);
    replace(&path, finished(0.1).as_bytes(), then);
    mesh.wait_until_membership("node-a", Membership::Denied);
    mkfifo();
    mesh.wait_until("it says so again", |mesh| {
        mesh.log("node-a").matches("a named pipe").count() == 2
    });
    let failing = mesh.node_status("node-a").benchmark.expect("it fails");
    assert!(failing.cause.contains("a named pipe"), "{failing:?}");
    assert_eq!(mesh.stop("node-a").code(), Some(0));
}

#[test]
fn an_old_result_is_made_young_neither_by_a_touch_nor_by_a_restart() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let path = folder.path().join("result.json");
    let builder = Mesh::builder().nodes(1).probation_epochs(0);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .node_setting("node-a", "emitter", "\"file\"")
        .node_setting(
            "node-a",
            "benchmark_file",
            format!("{:?}", path.display().to_string()),
        )
        .prepare();
    let hours_ago = SystemTime::now() - Duration::from_secs(2 * 3_600);
    replace(&path, result(0.9).as_bytes(), hours_ago);
    mesh.start_controller();
    mesh.start_node("node-a");
    let is_answered = |mesh: &Mesh| {
        let evidence = mesh
            .try_node_status("node-a")
            .and_then(|it| it.last_evidence);
        evidence.is_some_and(|it| it.result == "accepted" || it.result.starts_with("refused"))
    };
    mesh.wait_until("the old run is answered", |mesh| is_answered(mesh));
    replace(&path, result(0.9).as_bytes(), SystemTime::now());
    assert_eq!(mesh.stop("node-a").code(), Some(0));
    mesh.start_node("node-a");
    mesh.wait_until("the old run is answered again", |mesh| is_answered(mesh));
    let node = &mesh.status().nodes[&"node-a".parse().expect("a name")];
    assert_eq!(node.membership, Membership::Denied, "{node:?}");
    let finished = node.last_benchmark.as_ref().map(|it| it.timestamp.clone());
    let finished: Option<jiff::Timestamp> = finished.map(|it| it.parse().expect("a time"));
    let limit = jiff::Timestamp::try_from(hours_ago).expect("a time");
    assert!(
        finished.is_none_or(|it| it.as_second() <= limit.as_second() + 1),
        "{node:?}"
    );
}

fn result(overall: f64) -> String {
    format!(r#"{{"harness":"h","suite":"s","suiteVersion":"1","overall":{overall:.1}}}"#)
}

/// Replaces a file in one step, and lets its time be.
fn replace(path: &Path, content: &[u8], written: SystemTime) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("the folder is ours");
    let file = std::fs::File::options().write(true).open(&new);
    let times = std::fs::FileTimes::new().set_modified(written);
    file.and_then(|file| file.set_times(times))
        .expect("the file is ours");
    std::fs::rename(&new, path).expect("the folder is ours");
}

/// How many processes were started with this command; zombies have none, and do not count.
fn alive(command: &str) -> usize {
    let wanted: Vec<u8> = command
        .bytes()
        .map(|it| if it == b' ' { 0 } else { it })
        .collect();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
    commands
        .filter(|it| it.strip_suffix(b"\0").is_some_and(|it| it == wanted))
        .count()
}
