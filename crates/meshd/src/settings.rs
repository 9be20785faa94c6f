//! Every setting once: its name in TOML, as flag and as environment variable are one declaration.
//!
//! `epoch_seconds` in the file, `--epoch-seconds` on the command line, `MESHD_EPOCH_SECONDS` in the
//! environment. The command line goes before the environment, the environment before the file, the
//! file before the default. Unknown settings, and settings of the other role, are errors. A list may be repeated,
//! or have commas, in every source; but the arguments of a program may have commas of their own.

use crate::addresses::one_or_many;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::path::PathBuf;

/// The daemon's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Judges evidence and publishes epochs.
    Controller,
    /// Carries packets among members.
    Node,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// A number, or a word in place of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Untagged")]
pub struct NumberOrWord(pub String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a word in quotes")]
enum Untagged {
    Number(i64),
    Word(String),
}

impl From<Untagged> for NumberOrWord {
    fn from(value: Untagged) -> Self {
        match value {
            Untagged::Number(number) => Self(number.to_string()),
            Untagged::Word(word) => Self(word),
        }
    }
}

impl From<String> for NumberOrWord {
    fn from(word: String) -> Self {
        Self(word)
    }
}

/// A segment of a controller's mesh.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentSettings {
    /// Its name.
    pub name: String,
    /// File with its whole policy [default: the default policy]
    pub policy_file: Option<PathBuf>,
    /// Its IPv4 range, which overlaps that of no other.
    pub mesh_v4: String,
    /// Its IPv6 range [default: derived from the mesh's id and the segment's number, in fd00::/8]
    pub mesh_v6: Option<String>,
}

/// Declares [`Settings`]: `role name: type = "value name"`, each optional.
macro_rules! settings {
    ($($(#[$doc:meta])* [$role:ident] $name:ident: $type:ty, $env:literal;)*) => {
        /// All settings, each as far as it was given.
        #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(rustdoc::broken_intra_doc_links, reason = "these are help texts, with brackets as in help texts")]
        pub struct Settings {
            $($(#[$doc])* #[arg(long, env = $env, hide_env_values = true)] pub $name: Option<$type>,)*
            /// A controller's segments; in the file alone.
            #[arg(skip)]
            pub segment: Option<Vec<SegmentSettings>>,
        }

        impl Settings {
            /// These settings, and those of `other` that are missing here.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self {
                    $($name: self.$name.or(other.$name),)*
                    segment: self.segment.or(other.segment),
                }
            }

            /// Forgets a setting; whether it was given.
            pub fn clear(&mut self, name: &str) -> bool {
                match name {
                    $(stringify!($name) => self.$name.take().is_some(),)*
                    "segment" => self.segment.take().is_some(),
                    _ => false,
                }
            }

            /// The names of those that are not the same in `other`.
            pub fn differing(&self, other: &Self) -> Vec<&'static str> {
                let each = [
                    $((stringify!($name), self.$name == other.$name),)*
                    ("segment", self.segment == other.segment),
                ];
                let differing = each.into_iter().filter(|(_, is_same)| !is_same);
                differing.map(|(name, _)| name).collect()
            }

            /// The names of all settings.
            pub fn names() -> impl Iterator<Item = &'static str> {
                [$(stringify!($name),)* "segment"].into_iter()
            }

            /// The first setting that does not belong to `role`.
            pub fn misplaced(&self, role: Role) -> Option<&'static str> {
                let given = [$((stringify!($name), Owner::$role, self.$name.is_some())),*];
                let segment = ("segment", Owner::Controller, self.segment.is_some());
                let mut given = given.iter().chain([&segment]);
                given.find(|(_, owner, set)| *set && !owner.serves(role)).map(|(name, ..)| *name)
            }
        }
    };
}

/// Which role a setting belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Both,
    Controller,
    Node,
}

impl Owner {
    fn serves(self, role: Role) -> bool {
        match self {
            Self::Both => true,
            Self::Controller => role == Role::Controller,
            Self::Node => role == Role::Node,
        }
    }
}

settings! {
    /// This daemon's role
    [Both] role: Role, "MESHD_ROLE";
    /// Directory for keys and state, 0700 [default: /var/lib/meshd/ROLE]
    [Both] state_dir: PathBuf, "MESHD_STATE_DIR";
    /// Admin socket, 0600, or 0660 with `socket_group` [default: /run/meshd/ROLE.sock]
    [Both] socket: PathBuf, "MESHD_SOCKET";
    /// Group whose members may use the admin socket, and so operate this daemon, by name or number [default: none]
    [Both] socket_group: String, "MESHD_SOCKET_GROUP";
    /// How log lines look [default: text]
    [Both] log_format: LogFormat, "MESHD_LOG_FORMAT";
    /// Log filter, as in `debug` or `info,tunnel=debug` [default: info]
    [Both] log_level: String, "MESHD_LOG_LEVEL";
    /// TCP address IP:PORT for metrics, which anyone may read who reaches it [default: none]
    [Both] metrics_listen: String, "MESHD_METRICS_LISTEN";
    /// Controller: TCP address IP:PORT of the web page, or off [default: 127.0.0.1:7480]
    [Controller] page: String, "MESHD_PAGE";
    /// Controller: file, 0600, with the token that readers of the page have to show; needed unless `page` is a loopback address [default: none]
    [Controller] page_token_file: PathBuf, "MESHD_PAGE_TOKEN_FILE";

    /// Controller: UDP address to listen on [default: [::]:7443]
    [Controller] listen: String, "MESHD_LISTEN";
    /// Both roles: where others reach this daemon; a controller's go into tokens as HOST:PORT, a
    /// node's go to its peers as IP:PORT; repeatable, or with commas
    #[serde(default, deserialize_with = "one_or_many")]
    [Both] advertise: Vec<String>, "MESHD_ADVERTISE";
    /// Controller: status file [default: status.json in the state directory]
    [Controller] status_file: PathBuf, "MESHD_STATUS_FILE";
    /// Controller: the mesh's IPv4 range [default: 10.76.0.0/15]
    [Controller] mesh_v4: String, "MESHD_MESH_V4";
    /// Controller: the mesh's IPv6 range [default: derived from the mesh's id, in fd00::/8]
    [Controller] mesh_v6: String, "MESHD_MESH_V6";
    /// Controller: file with the whole policy, in place of the settings of it that follow [default: none]
    [Controller] policy_file: PathBuf, "MESHD_POLICY_FILE";
    /// Controller: length of an epoch, 1 to 86400 [default: 60]
    [Controller] epoch_seconds: u64, "MESHD_EPOCH_SECONDS";
    /// Controller: least overall score of a member [default: 0.70]
    [Controller] threshold: f64, "MESHD_THRESHOLD";
    /// Controller: oldest evidence that counts, in seconds [default: 120]
    [Controller] max_benchmark_age: u64, "MESHD_MAX_BENCHMARK_AGE";
    /// Controller: least score of one metric, NAME=SCORE; repeatable, or with commas
    #[serde(default, deserialize_with = "one_or_many")]
    [Controller] metric_minimum: Vec<String>, "MESHD_METRIC_MINIMUM";
    /// Controller: whose evidence counts: any, self or evaluator [default: any]
    [Controller] required_signer: String, "MESHD_REQUIRED_SIGNER";
    /// Controller: key of an evaluator, evaluator:HEX; repeatable, or with commas
    #[serde(default, deserialize_with = "one_or_many")]
    [Controller] evaluator: Vec<String>, "MESHD_EVALUATOR";
    /// Controller: the one harness whose evidence counts [default: any]
    [Controller] harness: String, "MESHD_HARNESS";
    /// Controller: the one suite whose evidence counts [default: any]
    [Controller] suite: String, "MESHD_SUITE";
    /// Controller: the version of the suite, or a range as in `>=2, <4` [default: any]
    [Controller] suite_version: String, "MESHD_SUITE_VERSION";
    /// Controller: epochs, the one it joins included, for which a newly enrolled node is admitted regardless [default: 0]
    [Controller] probation_epochs: u32, "MESHD_PROBATION_EPOCHS";
    /// Controller: consecutive passes that bring a quarantined node back [default: 1]
    [Controller] passes_to_return: u32, "MESHD_PASSES_TO_RETURN";
    /// Controller: consecutive failures that remove a member [default: 1]
    [Controller] failures_to_leave: u32, "MESHD_FAILURES_TO_LEAVE";
    /// Controller: when a failing member is dropped: epoch (the next one) or now [default: epoch]
    [Controller] revoke: String, "MESHD_REVOKE";
    /// Controller: how long nodes go on without news, in seconds [default: 5 epochs, at least 60]
    [Controller] lease_seconds: u64, "MESHD_LEASE_SECONDS";
    /// Controller: what nodes do then: close or open [default: close]
    [Controller] on_lease_end: String, "MESHD_ON_LEASE_END";
    /// Controller: share of members above which removals in one epoch wait for an operator [default: 0.5]
    [Controller] floor_share: f64, "MESHD_FLOOR_SHARE";
    /// Controller: fewest removals in one epoch that wait for an operator [default: 3]
    [Controller] floor_nodes: usize, "MESHD_FLOOR_NODES";

    /// Controller: what a token buys: token (a place), or approve (to wait for `meshctl node approve`) [default: token]
    [Controller] enrolment: String, "MESHD_ENROLMENT";
    /// Controller: authority:HEX that signed the event log until its key was replaced on purpose
    [Controller] adopt_log: String, "MESHD_ADOPT_LOG";
    /// The first part of the name of a new mesh's log [default: meshd]
    [Controller] log_name: String, "MESHD_LOG_NAME";
    /// Days for which evidence is kept in the event log, 0 for ever [default: 30]
    [Controller] keep_evidence_days: u64, "MESHD_KEEP_EVIDENCE_DAYS";

    /// Node: enrolment token, or @FILE, or - for standard input; once
    [Node] join: String, "MESHD_JOIN";
    /// Node: the name to ask for
    [Node] name: String, "MESHD_NAME";
    /// Node: segment to ask for; repeatable, or with commas [default: the first that the token allows]
    #[arg(visible_alias = "segment")]
    #[serde(default, deserialize_with = "one_or_many")]
    [Node] segments: Vec<String>, "MESHD_SEGMENTS";
    /// Node: controller address HOST:PORT instead of the token's; repeatable, or with commas
    #[serde(default, deserialize_with = "one_or_many")]
    [Node] controller: Vec<String>, "MESHD_CONTROLLER";
    /// Node: UDP port of WireGuard, 0 for any [default: 51820]
    [Node] listen_port: u16, "MESHD_LISTEN_PORT";
    /// Node: name of the TUN interface; that of a second segment is named after both [default: meshd0]
    [Node] interface: String, "MESHD_INTERFACE";
    /// Node: directory for the sockets that `wg show` reads, or off [default: /var/run/wireguard]
    [Node] wireguard_dir: String, "MESHD_WIREGUARD_DIR";
    /// Node: firewall table that keeps mesh addresses to the tunnel: auto, keep or off [default: auto]
    [Node] firewall: String, "MESHD_FIREWALL";
    /// Node: MTU of the TUN interface: auto, or 1280 to 65000 [default: auto]
    [Node] mtu: NumberOrWord, "MESHD_MTU";
    /// Node: seconds without a word after which a peer is sent a keepalive: auto (25 behind an address translator), off, or 1 to 65535 [default: auto]
    [Node] persistent_keepalive: NumberOrWord, "MESHD_PERSISTENT_KEEPALIVE";
    /// Node: network behind this node that it offers to carry packets for, as in 10.1.0.0/16; repeatable, or with commas
    #[serde(default, deserialize_with = "one_or_many")]
    [Node] advertise_routes: Vec<String>, "MESHD_ADVERTISE_ROUTES";
    /// Node: whether packets go to networks behind other nodes [default: false]
    [Node] accept_routes: bool, "MESHD_ACCEPT_ROUTES";
    /// Node: loopback address IP:PORT of the DNS server for names of nodes, or off [default: 127.0.0.1:5376]
    [Node] dns_listen: String, "MESHD_DNS_LISTEN";
    /// Node: domain that names of nodes end in [default: mesh.internal]
    [Node] dns_suffix: String, "MESHD_DNS_SUFFIX";
    /// Node: whether systemd-resolved, where it runs, is told of that server: auto or off [default: auto]
    [Node] dns_resolved: String, "MESHD_DNS_RESOLVED";
    /// Node: hosts file in which a block of names is kept, or none [default: none]
    [Node] hosts_file: String, "MESHD_HOSTS_FILE";
    /// Node: TUN back end: auto, offload or tun-tap [default: auto]
    [Node] tun_backend: String, "MESHD_TUN_BACKEND";
    /// Node: whether TCP goes through the TUN device in super-packets, where that works [default: true]
    [Node] tun_tcp_offload: bool, "MESHD_TUN_TCP_OFFLOAD";
    /// Node: whether UDP goes through the TUN device in super-packets, where that works [default: true]
    [Node] tun_udp_offload: bool, "MESHD_TUN_UDP_OFFLOAD";
    /// Node: whether datagrams are sent in batches (GSO), where that works [default: true]
    [Node] udp_gso: bool, "MESHD_UDP_GSO";
    /// Node: whether datagrams are received in batches (GRO), where that works [default: true]
    [Node] udp_gro: bool, "MESHD_UDP_GRO";
    /// Node: threads that carry packets, 1 to 64 [default: half the cores, at least 1, at most 16]
    [Node] data_threads: usize, "MESHD_DATA_THREADS";
    /// Node: where evidence comes from: none, mock, command, file or directory [default: none]
    [Node] emitter: String, "MESHD_EMITTER";
    /// Node: seconds between two runs of the emitter [default: 30]
    [Node] emit_seconds: u64, "MESHD_EMIT_SECONDS";
    /// Node: mean of the mock emitter's scores [default: 0.9]
    [Node] mock_mean: f64, "MESHD_MOCK_MEAN";
    /// Node: greatest distance of a mock score from the mean [default: 0.03]
    [Node] mock_jitter: f64, "MESHD_MOCK_JITTER";
    /// Node: program of the command emitter and its arguments; repeatable
    [Node] benchmark_command: Vec<String>, "MESHD_BENCHMARK_COMMAND";
    /// Node: seconds after which that program is killed [default: 300]
    [Node] benchmark_timeout_seconds: u64, "MESHD_BENCHMARK_TIMEOUT_SECONDS";
    /// Node: file that the file emitter watches
    [Node] benchmark_file: PathBuf, "MESHD_BENCHMARK_FILE";
    /// Node: folder of which the directory emitter takes the newest finished file of each suite
    [Node] benchmark_directory: PathBuf, "MESHD_BENCHMARK_DIRECTORY";
    /// Node: form of the results: meshd, inspect, lm-eval, junit or exit-code [default: meshd]
    [Node] benchmark_format: String, "MESHD_BENCHMARK_FORMAT";
    /// Node: the suite of results that have no name for it (junit, exit-code) [default: the report's, the file's or the program's name]
    [Node] benchmark_suite: String, "MESHD_BENCHMARK_SUITE";
    /// Node: the suite's version of results that have none [default: unversioned]
    [Node] benchmark_suite_version: String, "MESHD_BENCHMARK_SUITE_VERSION";
    /// Node: the suites that are taken of results with several; repeatable [default: all]
    [Node] benchmark_only: Vec<String>, "MESHD_BENCHMARK_ONLY";
    /// Node: the user that the benchmark's program runs as, a name or a number [default: the daemon's]
    [Node] benchmark_user: String, "MESHD_BENCHMARK_USER";
    /// Node: seconds between two probes of every peer, 0 for none [default: 10]
    [Node] probe_seconds: u64, "MESHD_PROBE_SECONDS";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_first_wins() {
        let flags = Settings {
            threshold: Some(0.9),
            ..Settings::default()
        };
        let file: Settings = toml::from_str("threshold = 0.5\nepoch_seconds = 10").unwrap();
        let merged = flags.or(file);
        assert_eq!(
            (merged.threshold, merged.epoch_seconds),
            (Some(0.9), Some(10))
        );
    }

    #[test]
    fn a_list_with_one_entry_needs_no_brackets_in_the_file() {
        let one: Settings = toml::from_str("advertise = \"a:1,b:2\"").unwrap();
        assert_eq!(one.advertise, Some(vec!["a:1,b:2".to_owned()]));
        let many: Settings = toml::from_str("advertise = [\"a:1\", \"b:2\"]").unwrap();
        assert_eq!(
            many.advertise,
            Some(vec!["a:1".to_owned(), "b:2".to_owned()])
        );
        assert_eq!(toml::from_str::<Settings>("").unwrap().advertise, None);
        let error = toml::from_str::<Settings>("advertise = 7").unwrap_err();
        assert!(error.to_string().contains("a list of texts"), "{error}");
    }

    #[test]
    fn a_typo_and_a_setting_of_the_other_role_are_errors() {
        assert!(toml::from_str::<Settings>("treshold = 0.5").is_err());
        let node: Settings = toml::from_str("threshold = 0.5").unwrap();
        assert_eq!(node.misplaced(Role::Node), Some("threshold"));
        assert_eq!(node.misplaced(Role::Controller), None);
    }
}
