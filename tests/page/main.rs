//! The controller's page in a real browser (Debian's chromium, headless), driven by `drive.mjs`: once before a real
//! controller with three nodes, once before 300 nodes from fixed words. The browser runs in the controller's namespace,
//! or asks a loopback address; it reaches nothing else.
//!
//! `PAGE_PICTURES=FOLDER` has the run leave its screenshots there; those in docs/images are `cut-off`, `dark` and `explain`.

mod large;

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::Membership;

#[test]
fn the_page_shows_the_mesh_as_it_is_and_as_it_changes() {
    let _alone = alone();
    let mut mesh = Mesh::builder()
        .nodes(3)
        .epoch_seconds(4)
        .every_node_setting("probe_seconds", 1)
        .start();
    let namespace = mesh.namespace(CONTROLLER);
    let mut browser = Browser::start(
        namespace.command("node"),
        "mesh",
        json!({"url": "http://127.0.0.1:7480/", "nodes": mesh.nodes(), "cut": "node-c"}),
    );
    assert_eq!(browser.hear()["say"], "well");
    let status = mesh.status();
    let page = status.page.expect("it is on unless told otherwise");
    assert_eq!((page.fault, page.token), (None, false));
    mesh.set_score("node-c", 0.1);
    mesh.wait_until_membership("node-c", Membership::Denied);
    browser.say("go on");
    assert_eq!(browser.hear()["say"], "cut off");
    mesh.stop(CONTROLLER);
    browser.say("go on");
    assert_eq!(browser.hear()["say"], "done");
    browser.end();
}

/// A browser, driven by a story.
pub(crate) struct Browser {
    driver: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Browser {
    /// Starts a story by `node`, a command for Node.js.
    pub(crate) fn start(mut node: Command, story: &str, mut settings: Value) -> Self {
        settings["chromium"] = json!("/usr/bin/chromium");
        if let Some(pictures) = std::env::var_os("PAGE_PICTURES") {
            settings["pictures"] = json!(pictures.to_string_lossy());
        }
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("page/drive.mjs");
        let driver = node
            .arg(driver)
            .arg(story)
            .env("PAGE_TESTS_MODULES", modules())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut driver =
            driver.expect("the tests need `node` and `chromium`: tests/tools node chromium");
        let said = BufReader::new(driver.stdout.take().expect("it is a pipe"));
        let mut browser = Self { driver, said };
        browser.say(&settings.to_string());
        browser
    }

    /// Says a line to the story.
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.driver.stdin.as_mut().expect("it is a pipe");
        // One that has ended says why.
        let _ = writeln!(input, "{line}");
    }

    /// The story's next words.
    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it is a pipe");
        if line.is_empty() {
            let mut why = String::new();
            let errors = self.driver.stderr.as_mut().expect("it is a pipe");
            errors.read_to_string(&mut why).expect("words are text");
            panic!("the browser's story ended: {why}");
        }
        serde_json::from_str(&line).expect("words are JSON")
    }

    /// Waits for the end of the story.
    pub(crate) fn end(mut self) {
        let status = self.driver.wait().expect("it was started");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its driver, whose pipe it has.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The folder with the driver's packages, installed once per build folder as the lockfile says.
fn modules() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-driver");
        std::fs::create_dir_all(&to).expect("the build folder is writable");
        let is_installed = || {
            let read = |folder: &Path| std::fs::read(folder.join("package-lock.json")).ok();
            to.join("node_modules/playwright-core/package.json")
                .exists()
                && read(&to) == read(&from)
        };
        if !is_installed() {
            for name in ["package.json", "package-lock.json", ".npmrc"] {
                std::fs::copy(from.join(name), to.join(name)).expect("it can be copied");
            }
            let npm = Command::new("npm")
                .args([
                    "ci",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ])
                .current_dir(&to)
                .status();
            let npm = npm.expect("the tests need `npm`: tests/tools npm");
            assert!(npm.success(), "npm ci: {npm}");
        }
        to
    })
}

/// Held by each story from its beginning: two of them beside each other are slow enough for a server to say so.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
