//! The arrows between crates, as tests: a map from each forbidden edge to its reason, held against
//! `cargo metadata`, what the sources of a ring may not name, and no circles of files within a crate. Refuses
//! no style: lints do that.
//!
//! A failure names the edge, the way that leads there, and the reason. To change a rule, change the
//! map below and say why in the same place.

#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/modules.rs"]
mod modules;
#[path = "architecture/sources.rs"]
mod sources;

use graph::{Breach, Graph, Rule};
use sources::Ban;

/// Crates that must replay in simulation and fuzzing.
const PURE: &[&str] = &[
    "allowance",
    "filter",
    "keys",
    "ledger",
    "wire",
    "harness",
    "policy",
    "epoch",
    "names",
    "tunnel",
    "agent",
    "offload",
];
/// The crates that are built for users.
const PRODUCT: &[&str] = &[
    "allowance",
    "filter",
    "keys",
    "ledger",
    "wire",
    "harness",
    "policy",
    "epoch",
    "names",
    "tunnel",
    "agent",
    "offload",
    "quic",
    "exposition",
    "service",
    "admin",
    "page",
    "record",
    "machine",
    "node",
    "controller",
    "meshd",
    "meshctl",
];

const REPLAY: &str = "a pure crate must replay in simulation and fuzzing: no runtime, socket, \
                      clock, randomness or database of its own";
const TWO_MACHINES: &str = "two machines with one meeting place, agent/src/data.rs";
const OVER_QUIC: &str = "roles meet only over QUIC";
const OPERATOR: &str = "the operator's tool cannot bypass the socket";
const ONE_FILE: &str = "one crate to change when upstream does";
const NO_LAB: &str = "the product never knows the lab";

/// Forbidden edges. `Reach` follows normal dependencies all the way, `OnlyBy` looks at direct ones.
const EDGES: &[Rule] = &[
    Rule::Reach {
        from: PURE,
        never: EFFECTS,
        because: REPLAY,
    },
    Rule::Reach {
        from: PURE,
        never: &[
            "quic",
            "exposition",
            "service",
            "admin",
            "machine",
            "page",
            "node",
            "controller",
        ],
        because: REPLAY,
    },
    Rule::Reach {
        from: &["tunnel"],
        never: &["epoch"],
        because: TWO_MACHINES,
    },
    Rule::Reach {
        from: &["epoch"],
        never: &["tunnel"],
        because: TWO_MACHINES,
    },
    Rule::Reach {
        from: &["node"],
        never: &["policy", "controller"],
        because: OVER_QUIC,
    },
    Rule::Reach {
        from: &["controller"],
        never: &["tunnel", "agent", "node"],
        because: OVER_QUIC,
    },
    Rule::Reach {
        from: &["page"],
        never: &["admin", "controller", "policy", "record"],
        because: "the page reads and cannot order",
    },
    Rule::Reach {
        from: &["meshctl"],
        never: &[
            "epoch",
            "tunnel",
            "agent",
            "names",
            "quic",
            "exposition",
            "service",
            "page",
            "node",
            "controller",
            "meshd",
        ],
        because: OPERATOR,
    },
    Rule::Reach {
        from: PRODUCT,
        never: &["tests", "benches"],
        because: NO_LAB,
    },
    Rule::OnlyBy {
        to: &["boringtun"],
        by: &["tunnel"],
        because: ONE_FILE,
    },
    Rule::OnlyBy {
        to: &["quinn", "quinn-proto", "rustls"],
        by: &["quic"],
        because: ONE_FILE,
    },
    Rule::OnlyBy {
        to: &["domain"],
        by: &["names"],
        because: ONE_FILE,
    },
    Rule::OnlyBy {
        to: &["prometheus-client"],
        by: &["exposition"],
        because: ONE_FILE,
    },
    Rule::OnlyBy {
        to: &["tun-tap", "tun-rs", "rtnetlink"],
        by: &["node"],
        because: ONE_FILE,
    },
];

/// Third-party crates with an effect, as far as anyone here is likely to reach for one.
const EFFECTS: &[&str] = &[
    "async-io",
    "async-std",
    "axum",
    "chrono",
    "getrandom",
    "hyper",
    "mio",
    "nix",
    "quinn",
    "quinn-proto",
    "quinn-udp",
    "reqwest",
    "rtnetlink",
    "rusqlite",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tun-rs",
    "tun-tap",
];

/// Edges that `Reach` does not follow, each with the reason why that is bearable.
const BREACHES: &[Breach] = &[
    Breach {
        from: "tunnel",
        to: "boringtun",
        because: "its timers read the clock and its handshakes draw randomness, and no argument \
                  changes that: simulations replay what it does, not its bytes",
    },
    Breach {
        from: "rand_core",
        to: "getrandom",
        because: "`OsRng` is a feature that the edges and tests switch on for everybody; \
                  that no pure source names it is checked below",
    },
];

/// The names that sources may not use outside `#[cfg(test)]`.
const NAMES: &[Ban] = &[
    Ban {
        within: PURE,
        except: None,
        names: &[
            "Instant::now",
            "SystemTime::now",
            "Timestamp::now",
            "Zoned::now",
            "OsRng",
            "thread_rng",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "thread::sleep",
        ],
        because: REPLAY,
    },
    Ban {
        within: &["node"],
        except: Some("src/io"),
        names: &["tun_tap", "tun_rs"],
        because: "interfaces are opened in node/src/io alone: one folder to change when upstream does",
    },
];

/// Crates whose files go round in circles still, and are being untied.
const TANGLED: &[&str] = &[];

#[test]
fn no_crate_has_an_edge_that_the_map_forbids() {
    let graph = Graph::of_this_workspace();
    let broken = graph.violations(EDGES, BREACHES);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_breach_is_still_needed() {
    let graph = Graph::of_this_workspace();
    for Breach { from, to, because } in BREACHES {
        assert!(
            graph.has_edge(from, to),
            "nothing has {from} → {to} any more ({because})"
        );
    }
}

#[test]
fn the_map_names_crates_that_exist_and_every_crate_is_in_the_map() {
    let mut known: Vec<&str> = [PRODUCT, &["tests", "benches", "fuzz"]].concat();
    known.sort_unstable();
    assert_eq!(Graph::of_this_workspace().workspace(), known);
    assert!(PURE.iter().all(|name| PRODUCT.contains(name)));
}

#[test]
fn no_source_names_what_its_ring_refuses() {
    let broken = sources::named(NAMES);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn no_files_of_a_crate_need_each_other_in_a_circle() {
    let crates = PRODUCT.iter().filter(|name| !TANGLED.contains(name));
    let circles: Vec<String> = crates.flat_map(|name| modules::circles(name)).collect();
    assert!(circles.is_empty(), "\n{}\n", circles.join("\n"));
}

#[test]
fn every_source_opens_by_saying_what_it_owns() {
    let broken = sources::without_header(&["crates", "tests", "benches"]);
    assert!(broken.is_empty(), "no `//!` on the first line: {broken:#?}");
}

#[test]
fn every_crate_that_logs_is_heard_at_the_level_that_is_set() {
    let graph = Graph::of_this_workspace();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/meshd/src/logging.rs"
    );
    let source = std::fs::read_to_string(path).expect("the source of the log's filter");
    let list = source.split_once("const OURS").expect("its list").1;
    let list = list.split_once("];").expect("the end of it").0;
    let silent = PRODUCT
        .iter()
        .filter(|name| graph.has_edge(name, "tracing"))
        .filter(|name| !list.contains(&format!("\"{name}\"")));
    let silent: Vec<_> = silent.filter(|name| **name != "meshctl").collect();
    assert!(
        silent.is_empty(),
        "lines of {silent:?} are lost at the default level"
    );
}

#[test]
fn comments_begin_with_their_subject() {
    let riddles = sources::riddles(&["crates", "tests", "benches"]);
    assert!(
        riddles.is_empty(),
        "a reader has to wait for the subject: {riddles:#?}"
    );
}

#[test]
fn every_pure_crate_forbids_unsafe_code() {
    let broken = sources::without_forbid(PURE);
    assert!(
        broken.is_empty(),
        "no `#![forbid(unsafe_code)]`: {broken:#?}"
    );
}

mod the_checker_itself {
    use super::*;

    fn broken_by(edges: &[(&str, &[&str])]) -> Vec<String> {
        Graph::synthetic(edges).violations(EDGES, BREACHES)
    }

    #[test]
    fn finds_a_forbidden_edge_behind_another_and_names_way_and_reason() {
        let broken = broken_by(&[("policy", &["helpful"]), ("helpful", &["tokio"])]);
        let expected =
            format!("policy → helpful → tokio: policy must not reach tokio, because {REPLAY}");
        assert_eq!(broken, [expected]);
    }

    #[test]
    fn finds_each_edge_of_the_map() {
        for (from, to) in [
            ("tunnel", "epoch"),
            ("epoch", "tunnel"),
            ("node", "policy"),
            ("controller", "tunnel"),
            ("node", "controller"),
            ("controller", "node"),
            ("meshctl", "quic"),
            ("keys", "node"),
            ("node", "boringtun"),
            ("controller", "quinn"),
            ("meshd", "rustls"),
            ("quic", "tun-tap"),
            ("node", "prometheus-client"),
            ("meshd", "tests"),
        ] {
            let broken = broken_by(&[(from, &[to]), (to, &[])]);
            assert_eq!(broken.len(), 1, "{from} → {to}: {broken:?}");
            assert!(
                broken[0].starts_with(&format!("{from} → {to}: ")),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn lets_pass_what_is_meant_to_be() {
        let edges: &[(&str, &[&str])] = &[
            ("node", &["tunnel", "quic", "epoch", "tun-tap", "tokio"]),
            ("tunnel", &["boringtun", "keys"]),
            ("boringtun", &["getrandom", "nix"]),
            ("quic", &["quinn", "rustls", "wire"]),
            ("quinn", &["rustls", "tokio"]),
            ("keys", &["rand_core"]),
            ("rand_core", &["getrandom"]),
            ("tests", &["node", "controller", "boringtun"]),
        ];
        assert_eq!(broken_by(edges), [""; 0]);
    }

    #[test]
    fn a_breach_is_one_edge_and_not_a_licence() {
        let broken = broken_by(&[
            ("tunnel", &["boringtun", "nix"]),
            ("boringtun", &["nix"]),
            ("epoch", &["boringtun"]),
        ]);
        assert_eq!(broken.len(), 3, "{broken:#?}");
    }

    #[test]
    fn sees_a_name_in_code_but_not_in_comments_strings_or_tests() {
        let names = &["Instant::now", "OsRng"];
        let code = "fn f() { let at = std :: time :: Instant\n::now(); }";
        assert_eq!(sources::names_in(code, names), ["Instant::now"]);
        let macros = "trace!(at = ?Instant::now());";
        assert_eq!(sources::names_in(macros, names), ["Instant::now"]);
        let import = "use rand_core::{CryptoRng, OsRng};";
        assert_eq!(sources::names_in(import, names), ["OsRng"]);
        let quiet = r#"
            //! Never calls `Instant::now`.
            const WHY: &str = "OsRng";
            struct NotOsRng;
            #[cfg(test)]
            #[derive(Debug)]
            struct Helper { rng: OsRng }
            #[cfg(test)]
            use rand_core::OsRng;
            #[cfg(test)]
            mod tests { fn f() { OsRng.next(); } }
        "#;
        assert_eq!(sources::names_in(quiet, names), [""; 0]);
        let after = "#[cfg(test)] mod tests {} fn f() { OsRng.next(); }";
        assert_eq!(sources::names_in(after, names), ["OsRng"]);
        let product = "#[cfg(not(test))] fn f() { OsRng.next(); }";
        assert_eq!(sources::names_in(product, names), ["OsRng"]);
    }
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let parts = |path: &str| -> Vec<String> {
            let parts = path.split('/').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let files = files.iter().map(|(path, source)| (parts(path), *source));
        let files: Vec<_> = files.collect();
        modules::circles_among(&files)
    }

    #[test]
    fn names_a_circle_of_files_once_however_a_path_is_written() {
        let found = circles(&[
            ("", "mod a; mod b; mod c; pub use c::{deep::C, other as D};"),
            ("a", "use crate::{b::B, nothing::X};"),
            ("b", "fn f() -> super::c::C { todo!() }"),
            ("c", "mod deep;"),
            (
                "c/deep",
                "use super::super::a::A; mod inside { use super::b; }",
            ),
        ]);
        assert_eq!(found, ["a → b → c → a"]);
        let found = circles(&[
            ("", "pub use a::Config;"),
            ("a", "use crate::b;"),
            ("b", "struct B(crate::Config);"),
        ]);
        assert_eq!(found, ["a → b → a"]);
    }

    #[test]
    fn a_file_and_its_children_are_one_and_tests_are_not_code() {
        let found = circles(&[
            ("", "mod a; mod b;"),
            ("a", "mod child; use crate::b; pub(crate) struct A;"),
            ("a/child", "use super::A; use crate::a::B;"),
            ("b", "#[cfg(test)] mod tests { use crate::a; } // crate::a"),
        ]);
        assert_eq!(found, [""; 0]);
    }
}
