//! Bundles the page in `web/` with npm and esbuild, in the output directory alone. The lockfile names every package and
//! its hash. A machine without npm, or without a way to the packages, builds a plain text in the page's place and says
//! so: no build of the daemon fails for the page's sake, and a test tells whether the page is there.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() {
    println!("cargo:rerun-if-changed=web");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let page = out.join("page");
    let built = bundle(&out.join("npm"), &page);
    if let Err(error) = &built {
        println!("cargo:warning=the controller's web page is not built in: {error}");
        // A file that is never there: the next build tries again.
        println!("cargo:rerun-if-changed={}", out.join("never").display());
        if let Err(error) = plain(&page) {
            println!("cargo:warning=nor is the text in its place: {error}");
        }
    }
    let word = if built.is_ok() { "yes" } else { "no" };
    println!("cargo:rustc-env=MESHD_PAGE_BUILT={word}");
    println!("cargo:rustc-env=MESHD_PAGE_TAG={:016x}", tag(&page));
}

fn bundle(work: &Path, page: &Path) -> Outcome<()> {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let _ = fs::remove_dir_all(work);
    copy(&web, work)?;
    fs::create_dir_all(page)?;
    // Nothing that a package brings is run, except esbuild itself.
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    run(npm.current_dir(work)).map_err(|error| format!("npm ci: {error}"))?;
    let mut esbuild = Command::new("node");
    esbuild.args([
        "node_modules/esbuild/bin/esbuild",
        "src/page.js",
        "src/page.css",
    ]);
    esbuild.args([
        "--bundle",
        "--minify",
        "--format=iife",
        "--target=es2022,chrome109,firefox115,safari16",
    ]);
    esbuild.args(["--legal-comments=eof", "--log-level=warning"]);
    esbuild.arg(format!("--outdir={}", page.display()));
    run(esbuild.current_dir(work)).map_err(|error| format!("esbuild: {error}"))?;
    fs::copy(work.join("index.html"), page.join("index.html"))?;
    fs::write(page.join("notices.txt"), notices(work)?)?;
    // Forty megabytes that nobody needs any more.
    let _ = fs::remove_dir_all(work);
    Ok(())
}

fn run(command: &mut Command) -> Outcome<()> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let first = said.lines().find(|line| !line.trim().is_empty());
    Err(first.unwrap_or("it failed, and said nothing").into())
}

/// The licences of the packages that are in the bundle: all that are installed, except the bundler.
fn notices(work: &Path) -> Outcome<String> {
    let mut folders: Vec<PathBuf> = fs::read_dir(work.join("node_modules"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("package.json").is_file() && !path.ends_with("esbuild"))
        .collect();
    folders.sort();
    let mut text = String::from("The page contains the following packages.\n");
    for folder in folders {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut licences = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .to_lowercase();
                name.starts_with("licen")
            });
        let licence = licences
            .next()
            .ok_or_else(|| format!("{name} has no licence"))?;
        text.push_str(&format!("\n--- {name}\n\n{}", fs::read_to_string(licence)?));
    }
    Ok(text)
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            // A developer may have installed the packages there.
            if entry.file_name() != "node_modules" {
                copy(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The text in the page's place.
fn plain(page: &Path) -> Outcome<()> {
    fs::create_dir_all(page)?;
    let html = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>meshd</title>\
                <h1>This meshd was built without its page</h1>\
                <p>The page needs npm on the machine that builds meshd: install npm (on Debian: nodejs and npm) and \
                build again. Until then <code>meshctl status</code> shows the mesh.</p></html>\n";
    fs::write(page.join("index.html"), html)?;
    for name in ["page.js", "page.css", "notices.txt"] {
        fs::write(page.join(name), "")?;
    }
    Ok(())
}

fn tag(page: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in ["index.html", "page.js", "page.css", "notices.txt"] {
        fs::read(page.join(name))
            .unwrap_or_default()
            .hash(&mut hasher);
    }
    hasher.finish()
}
