//! The sources as read: their first line, their crate's attributes, and the names in their code.
//! Code is read as tokens, so that comments, strings and layout neither hide nor feign a name.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::path::{Path, PathBuf};

/// Names that some crates' code may not hold outside `#[cfg(test)]`.
pub(super) struct Ban {
    /// The crates.
    pub(super) within: &'static [&'static str],
    /// A folder of the crate that is exempt.
    pub(super) except: Option<&'static str>,
    /// Paths or single words, as written in code.
    pub(super) names: &'static [&'static str],
    pub(super) because: &'static str,
}

/// One line per banned name and file.
pub(super) fn named(bans: &[Ban]) -> Vec<String> {
    let mut found = Vec::new();
    for ban in bans {
        for krate in ban.within {
            let home = root().join("crates").join(krate);
            let exempt = ban.except.map(|folder| home.join(folder));
            let files = rust_files(&home.join("src")).into_iter();
            let files = files.filter(|file| !exempt.as_ref().is_some_and(|e| file.starts_with(e)));
            for file in files.filter(|file| !is_test_module(file)) {
                let names = names_in(&read(&file), ban.names);
                let (file, because) = (shown(&file), ban.because);
                found.extend(
                    names
                        .iter()
                        .map(|name| format!("{file} names {name}, but {because}")),
                );
            }
        }
    }
    found
}

/// Those of `names` that stand in `source` outside `#[cfg(test)]`.
pub(super) fn names_in<'a>(source: &str, names: &[&'a str]) -> Vec<&'a str> {
    let tokens: TokenStream = source.parse().expect("the compiler has read this source");
    let mut found = Vec::new();
    words(without_tests(tokens), &mut found);
    let is_named = |name: &&&str| {
        let wanted: Vec<&str> = name
            .split("::")
            .flat_map(|part| [":", ":", part])
            .skip(2)
            .collect();
        found.windows(wanted.len()).any(|there| there == wanted)
    };
    names.iter().filter(is_named).copied().collect()
}

/// Files below the folders that do not begin with `//!`.
pub(super) fn without_header(folders: &[&str]) -> Vec<String> {
    let files = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)));
    let files = files.filter(|file| !read(file).starts_with("//!"));
    files.map(|file| shown(&file)).collect()
}

/// Comments that begin with a relative word instead of their subject.
pub(super) fn riddles(folders: &[&str]) -> Vec<String> {
    let files = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)));
    let in_file = |file: PathBuf| {
        let text = read(&file);
        let lines = text.lines().enumerate();
        let begin = lines.filter(|(_, line)| {
            let comment = line.trim_start().strip_prefix("//");
            let words = comment.map(|text| text.trim_start_matches(['/', '!']).trim_start());
            let first = words.and_then(|words| words.split(' ').next());
            matches!(first, Some("Who" | "What" | "Whatever"))
        });
        let begin: Vec<_> = begin
            .map(|(at, _)| format!("{}:{}", shown(&file), at + 1))
            .collect();
        begin
    };
    files.flat_map(in_file).collect()
}

/// Crates whose root lacks `#![forbid(unsafe_code)]`. A root without any code is let pass: it has
/// nothing to forbid.
pub(super) fn without_forbid(crates: &[&str]) -> Vec<String> {
    let roots = crates
        .iter()
        .map(|krate| root().join(format!("crates/{krate}/src/lib.rs")));
    let lacking = roots.filter(|file| {
        let source = read(file);
        let has_code = source
            .lines()
            .any(|line| !line.is_empty() && !line.starts_with("//"));
        has_code && !source.lines().any(|line| line == "#![forbid(unsafe_code)]")
    });
    lacking.map(|file| shown(&file)).collect()
}

/// A crate's files without those of its tests, each with its path below `src`.
pub(super) fn product_files(krate: &str) -> Vec<(PathBuf, String)> {
    let src = root().join("crates").join(krate).join("src");
    let files = rust_files(&src).into_iter();
    let files = files.filter(|file| !is_test_module(file));
    files
        .map(|file| {
            let path = file.strip_prefix(&src).expect("it was found there");
            (path.to_owned(), read(&file))
        })
        .collect()
}

/// The code without attributes and without items behind `#[cfg(test)]`.
pub(super) fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut tokens = tokens.into_iter().peekable();
    let mut kept = Vec::new();
    let mut skips_item = false;
    while let Some(token) = tokens.next() {
        let attribute = match (&token, tokens.peek()) {
            (TokenTree::Punct(sign), Some(TokenTree::Group(group)))
                if sign.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                Some(group.clone())
            }
            _ => None,
        };
        if let Some(group) = attribute {
            skips_item |= is_cfg_test(&group);
            if skips_item {
                tokens.next();
            }
            continue;
        }
        if skips_item {
            skips_item = !ends_item(&token);
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let inside = without_tests(group.stream());
                TokenTree::Group(Group::new(group.delimiter(), inside))
            }
            other => other,
        });
    }
    kept.into_iter().collect()
}

/// The words and signs of the code, in order.
fn words(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => words(group.stream(), found),
            TokenTree::Ident(word) => found.push(word.to_string()),
            TokenTree::Punct(sign) => found.push(sign.to_string()),
            TokenTree::Literal(_) => {}
        }
    }
}

fn is_cfg_test(attribute: &Group) -> bool {
    let text: String = attribute
        .stream()
        .into_iter()
        .map(|token| token.to_string())
        .collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Items end with a block or a semicolon; fields and variants, which may be cut too, with a comma.
fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(sign) => [';', ','].contains(&sign.as_char()),
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

/// `#[cfg(test)] mod tests;` stands in another file than what it cuts.
fn is_test_module(file: &Path) -> bool {
    let is_tests = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    file.strip_prefix(root())
        .is_ok_and(|file| file.iter().any(is_tests))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of this repository");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let is_built = |path: &Path| path.file_name().is_some_and(|name| name == "target");
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() && !is_built(&path) {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn shown(file: &Path) -> String {
    let inside = file.strip_prefix(root()).unwrap_or(file);
    inside.display().to_string()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
