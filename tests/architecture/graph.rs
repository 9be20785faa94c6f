//! The workspace's normal dependencies as a graph, and the rules that it is held against. Edges for
//! tests and build scripts are left out: they are in no product.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

/// A forbidden edge with its reason.
pub(super) enum Rule {
    /// None of `from` may depend on any of `never`, over however many crates.
    Reach {
        from: &'static [&'static str],
        never: &'static [&'static str],
        because: &'static str,
    },
    /// Of the product's crates, only `by` may depend on `to` directly.
    OnlyBy {
        to: &'static [&'static str],
        by: &'static [&'static str],
        because: &'static str,
    },
}

/// An edge that [`Rule::Reach`] does not follow.
pub(super) struct Breach {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) because: &'static str,
}

/// Packages by id; two versions of one crate are two packages.
pub(super) struct Graph {
    packages: BTreeMap<String, Package>,
}

struct Package {
    name: String,
    is_ours: bool,
    needs: BTreeSet<String>,
}

impl Graph {
    /// Reads `cargo metadata` for the platform that this test runs on.
    pub(super) fn of_this_workspace() -> Self {
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.expect("cargo -vV names its host");
        let metadata = cargo(&[
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            host,
        ]);
        Self::from_metadata(&serde_json::from_str(&metadata).expect("metadata is JSON"))
    }

    /// A graph from names, for the checker's own tests; crates that only occur as targets have no
    /// edges, and the ones that the rules speak of count as ours.
    pub(super) fn synthetic(edges: &[(&str, &[&str])]) -> Self {
        let mut packages = BTreeMap::new();
        let targets = edges
            .iter()
            .flat_map(|(_, to)| *to)
            .map(|to| (*to, &[][..]));
        for (from, to) in targets.chain(edges.iter().copied()) {
            let package = Package {
                name: from.to_owned(),
                is_ours: super::PRODUCT.contains(&from) || ["tests", "benches"].contains(&from),
                needs: to.iter().map(|&to| to.to_owned()).collect(),
            };
            packages.insert(from.to_owned(), package);
        }
        Self { packages }
    }

    /// Names of our own crates, in order.
    pub(super) fn workspace(&self) -> Vec<&str> {
        let ours = self.packages.values().filter(|package| package.is_ours);
        let mut names: Vec<&str> = ours.map(|package| package.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Whether any package of the first name needs one of the second.
    pub(super) fn has_edge(&self, from: &str, to: &str) -> bool {
        let froms = self
            .packages
            .values()
            .filter(|package| package.name == from);
        let mut needs = froms.flat_map(|package| &package.needs);
        needs.any(|id| self.packages[id].name == to)
    }

    /// One line per broken rule and crate: the way, the edge, the reason.
    pub(super) fn violations(&self, rules: &[Rule], breaches: &[Breach]) -> Vec<String> {
        let mut found = Vec::new();
        for (id, package) in self.packages.iter().filter(|(_, package)| package.is_ours) {
            for rule in rules {
                match rule {
                    Rule::Reach {
                        from,
                        never,
                        because,
                    } if from.contains(&&*package.name) => {
                        let ways = never.iter().filter_map(|to| self.way(id, to, breaches));
                        found.extend(ways.map(|way| forbidden(&way, "reach", because)));
                    }
                    Rule::OnlyBy { to, by, because } if self.is_bound(package, by) => {
                        let direct = package.needs.iter().map(|id| &*self.packages[id].name);
                        let direct = direct.filter(|name| to.contains(name));
                        let ways = direct.map(|name| vec![&*package.name, name]);
                        found.extend(ways.map(|way| forbidden(&way, "depend on", because)));
                    }
                    Rule::Reach { .. } | Rule::OnlyBy { .. } => {}
                }
            }
        }
        found
    }

    /// Tests and benches may look at anything directly.
    fn is_bound(&self, package: &Package, by: &[&str]) -> bool {
        super::PRODUCT.contains(&&*package.name) && !by.contains(&&*package.name)
    }

    /// The shortest way from one package to any of that name, in names.
    fn way(&self, from: &str, to: &str, breaches: &[Breach]) -> Option<Vec<&str>> {
        let mut open = VecDeque::from([vec![from.to_owned()]]);
        let mut seen = BTreeSet::from([from.to_owned()]);
        while let Some(way) = open.pop_front() {
            let here = &self.packages[way.last().expect("a way has a beginning")];
            for id in &here.needs {
                let there = &self.packages[id];
                let is_breach = |b: &Breach| b.from == here.name && b.to == there.name;
                if breaches.iter().any(is_breach) || !seen.insert(id.clone()) {
                    continue;
                }
                let longer = [way.as_slice(), std::slice::from_ref(id)].concat();
                if there.name == to {
                    let names = longer.iter().map(|id| &*self.packages[id].name);
                    return Some(names.collect());
                }
                open.push_back(longer);
            }
        }
        None
    }

    fn from_metadata(metadata: &Value) -> Self {
        let texts = |value: &Value| -> BTreeSet<String> {
            let ids = value.as_array().expect("a list").iter();
            ids.map(|id| text(id).to_owned()).collect()
        };
        let ours = texts(&metadata["workspace_members"]);
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let names = list(&metadata["packages"]).into_iter();
        let names: BTreeMap<String, String> = names
            .map(|package| {
                (
                    text(&package["id"]).to_owned(),
                    text(&package["name"]).to_owned(),
                )
            })
            .collect();
        let nodes = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let id = text(&node["id"]).to_owned();
            let needs = list(&node["deps"]).into_iter().filter(is_normal);
            let package = Package {
                name: names[&id].clone(),
                is_ours: ours.contains(&id),
                needs: needs.map(|dep| text(&dep["pkg"]).to_owned()).collect(),
            };
            (id, package)
        });
        Self {
            packages: nodes.collect(),
        }
    }
}

fn forbidden(way: &[&str], verb: &str, because: &str) -> String {
    let (from, to) = (way[0], way[way.len() - 1]);
    format!(
        "{}: {from} must not {verb} {to}, because {because}",
        way.join(" → ")
    )
}

/// `kind` is null for a normal dependency, else `dev` or `build`.
fn is_normal(dep: &Value) -> bool {
    let kinds = dep["dep_kinds"].as_array().expect("a list");
    kinds.iter().any(|kind| kind["kind"].is_null())
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}
