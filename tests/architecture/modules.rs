//! Circles of files within a crate. The graph has a node for each module below the crate's root, its child
//! modules with it, and an edge for each path in its code that leads to another one, tests left out. Files
//! that need each other can neither be read nor tested one by one.

use super::sources;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// A crate's modules, and which of them each one names.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// One line per circle: the shortest way from a module back to itself.
pub(super) fn circles(krate: &str) -> Vec<String> {
    let files = sources::product_files(krate);
    let files: Vec<_> = files
        .iter()
        .map(|(path, source)| (module_of(path), source.as_str()))
        .collect();
    let lines = circles_among(&files).into_iter();
    lines.map(|circle| format!("{krate}: {circle}")).collect()
}

/// The same for sources that each stand in the module with this path; the root's path is empty.
pub(super) fn circles_among(files: &[(Vec<String>, &str)]) -> Vec<String> {
    let parsed = files.iter().map(|(path, source)| {
        let tokens: TokenStream = source.parse().expect("the compiler has read this source");
        (path, sources::without_tests(tokens))
    });
    let parsed: Vec<_> = parsed.collect();
    let modules = parsed.iter().filter_map(|(path, _)| path.first().cloned());
    let mut graph: Graph = modules.map(|name| (name, BTreeSet::new())).collect();
    let roots = parsed.iter().filter(|(path, _)| path.is_empty());
    let aliases: BTreeMap<String, String> = roots
        .flat_map(|(_, tokens)| aliases(tokens.clone(), &graph))
        .collect();
    for (path, tokens) in &parsed {
        let Some(module) = path.first() else {
            continue;
        };
        let mut names = BTreeSet::new();
        from_root(tokens.clone(), path.len(), &mut names);
        let known = |name: &String| graph.contains_key(name).then(|| name.clone());
        let targets = names.iter();
        let targets: BTreeSet<String> = targets
            .filter_map(|name| known(name).or_else(|| aliases.get(name).cloned()))
            .filter(|target| target != module)
            .collect();
        graph.get_mut(module).expect("it is a key").extend(targets);
    }
    let ways = graph.keys().filter_map(|module| way_back(&graph, module));
    let circles: BTreeSet<String> = ways.map(told).collect();
    circles.into_iter().collect()
}

/// The path of the module in this file, given from the crate's `src`.
fn module_of(file: &Path) -> Vec<String> {
    let file = file.with_extension("");
    let parts = file.iter().map(|part| part.to_string_lossy().into_owned());
    let mut parts: Vec<String> = parts.collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let is_root = matches!(parts.as_slice(), [one] if ["lib", "main"].contains(&one.as_str()));
    if is_root || parts.first().is_some_and(|first| first == "bin") {
        parts.clear();
    }
    parts
}

/// The first names behind `crate::`, and behind as many `super::` as lead from this depth to the root.
fn from_root(tokens: TokenStream, depth: usize, names: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        let begins = !before.is_some_and(|token| is_sign(token, '$') || is_sign(token, ':'));
        if begins && let Some(rest) = root_path(&tokens[at..], depth) {
            first_names(rest, names);
        }
        if let TokenTree::Group(group) = &tokens[at] {
            let is_module = at >= 2 && is_word(&tokens[at - 2], "mod");
            from_root(group.stream(), depth + usize::from(is_module), names);
        }
        at += 1;
    }
}

/// The tokens behind the root in a path that begins here, if it leads there.
fn root_path(tokens: &[TokenTree], depth: usize) -> Option<&[TokenTree]> {
    if is_word(tokens.first()?, "crate") {
        return behind_colons(&tokens[1..]);
    }
    let (mut rest, mut up) = (tokens, 0);
    while rest.first().is_some_and(|token| is_word(token, "super")) {
        rest = behind_colons(&rest[1..])?;
        up += 1;
    }
    (up > 0 && up == depth).then_some(rest)
}

fn behind_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [first, second, rest @ ..] if is_sign(first, ':') && is_sign(second, ':') => Some(rest),
        _ => None,
    }
}

/// The first name of a path, or of each in a `{…}` list.
fn first_names(path: &[TokenTree], names: &mut BTreeSet<String>) {
    match path.first() {
        Some(TokenTree::Ident(name)) => drop(names.insert(name.to_string())),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let list: Vec<TokenTree> = group.stream().into_iter().collect();
            for path in list.split(|token| is_sign(token, ',')) {
                first_names(path, names);
            }
        }
        _ => {}
    }
}

/// The root's re-exports, each with the module that has it: `crate::Config` is a way to that module.
fn aliases(root: TokenStream, graph: &Graph) -> Vec<(String, String)> {
    let tokens: Vec<TokenTree> = root.into_iter().collect();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if !is_word(&tokens[at], "use") {
            continue;
        }
        let end = tokens[at..].iter().position(|token| is_sign(token, ';'));
        let path = &tokens[at + 1..at + end.unwrap_or(0).max(1)];
        let Some(TokenTree::Ident(module)) = path.first() else {
            continue;
        };
        if graph.contains_key(&module.to_string()) {
            let mut names = Vec::new();
            words(path.iter().skip(1).cloned().collect(), &mut names);
            found.extend(names.into_iter().map(|name| (name, module.to_string())));
        }
    }
    found
}

fn words(tokens: TokenStream, names: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => names.push(word.to_string()),
            TokenTree::Group(group) => words(group.stream(), names),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// The shortest way from a module back to itself.
fn way_back(graph: &Graph, from: &str) -> Option<Vec<String>> {
    let mut open = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = open.pop_front() {
        let here = way.last().expect("a way has a beginning");
        for there in &graph[here] {
            if there == from {
                return Some(way);
            }
            if seen.insert(there) {
                let longer = [way.as_slice(), std::slice::from_ref(there)].concat();
                open.push_back(longer);
            }
        }
    }
    None
}

/// A circle in words, the same from whichever of its modules it was found.
fn told(mut circle: Vec<String>) -> String {
    let least = circle.iter().enumerate().min_by_key(|(_, name)| *name);
    let least = least.map_or(0, |(at, _)| at);
    circle.rotate_left(least);
    circle.push(circle[0].clone());
    circle.join(" → ")
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}
