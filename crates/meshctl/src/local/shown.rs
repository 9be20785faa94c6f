//! The settings of meshd that may be shown, and how. Refuses to guess: the value of a name that is not in the list is hidden,
//! and so is every part of a value in which a password or a token has its place.

use super::HIDDEN;
use toml::{Table, Value};

/// How much of a setting's value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All but passwords in addresses.
    Plain,
    /// The program, without its arguments.
    Command,
    /// Nothing, unless it names a place where the secret is.
    Secret,
    /// Tables with settings of their own.
    Tables,
}

/// Whether meshd has a setting of that name.
pub(super) fn is_setting(name: &str) -> bool {
    kind(name).is_some()
}

/// The table without secrets.
pub(super) fn table(settings: &Table) -> Table {
    let shown = settings.iter().map(|(name, it)| {
        let value = match kind(name) {
            None => Value::String(format!("{HIDDEN}: meshd has no such setting")),
            Some(Kind::Plain) => plain(it),
            Some(Kind::Command) => Value::String(command(it)),
            Some(Kind::Secret) => secret(it),
            Some(Kind::Tables) => tables(it),
        };
        (name.clone(), value)
    });
    shown.collect()
}

/// The texts that are hidden, so that they can be hidden wherever else they stand.
pub(super) fn secrets(settings: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in settings {
        match kind(name) {
            Some(Kind::Plain) => {}
            Some(Kind::Command) => arguments(value, &mut all),
            Some(Kind::Secret) if is_place(value) => {}
            Some(Kind::Secret) | None => texts(value, &mut all),
            Some(Kind::Tables) => {
                for table in value.as_array().into_iter().flatten() {
                    all.extend(table.as_table().map(secrets).unwrap_or_default());
                }
            }
        }
    }
    all
}

/// A text without the passwords and queries of the addresses in it; `ends` tells whether an address ends there.
pub(crate) fn without_passwords(text: &str, ends: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(ends) {
        let (scheme, rest) = match word.find("://") {
            Some(at) => word.split_at(at + "://".len()),
            None => ("", word),
        };
        let is_address = !scheme.is_empty();
        shown.push_str(scheme);
        let rest = match rest.rsplit_once('@') {
            Some((user, host)) if is_address || user.contains(':') => {
                shown.push_str(HIDDEN);
                shown.push('@');
                host
            }
            _ => rest,
        };
        match rest.split_once('?') {
            Some((path, query)) if is_address => {
                shown.push_str(path);
                shown.push('?');
                shown.push_str(HIDDEN);
                shown.extend(query.chars().last().filter(|it| !it.is_alphanumeric()));
            }
            _ => shown.push_str(rest),
        }
    }
    shown
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        "join" => Some(Kind::Secret),
        "benchmark_command" => Some(Kind::Command),
        "segment" => Some(Kind::Tables),
        _ => PLAIN.contains(&name).then_some(Kind::Plain),
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_passwords(text, char::is_whitespace)),
        Value::Array(all) => Value::Array(all.iter().map(plain).collect()),
        Value::Table(_) => Value::String(HIDDEN.to_owned()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.clone()
        }
    }
}

fn secret(value: &Value) -> Value {
    if is_place(value) {
        value.clone()
    } else {
        Value::String(HIDDEN.to_owned())
    }
}

/// Whether a value says where a secret is, and is none.
fn is_place(value: &Value) -> bool {
    let text = value.as_str();
    text.is_some_and(|it| it == "-" || it.starts_with('@'))
}

/// The arguments of a program may be anything, and so may be what stands before it.
fn command(value: &Value) -> String {
    let words = words_of_command(value);
    let program = words.first().filter(|it| !it.contains('='));
    let program = program.map_or(HIDDEN, String::as_str);
    match words.len().saturating_sub(1) {
        0 => program.to_owned(),
        1 => format!("{program} (1 argument, hidden)"),
        more => format!("{program} ({more} arguments, hidden)"),
    }
}

fn words_of_command(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    texts(value, &mut all);
    let words = all.iter().flat_map(|it| it.split(is_between));
    let words = words.filter(|it| !it.is_empty());
    words.map(str::to_owned).collect()
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || c == ','
}

/// The arguments as they were given, their words, and the values of flags in one word.
fn arguments(value: &Value, all: &mut Vec<String>) {
    let words = words_of_command(value).into_iter().skip(1);
    let mut whole = Vec::new();
    texts(value, &mut whole);
    for word in whole.into_iter().skip(1).chain(words) {
        match word.split_once('=') {
            Some((_, value)) => all.push(value.to_owned()),
            None if word.starts_with('-') => {}
            None => all.push(word),
        }
    }
}

/// All texts in a value.
fn texts(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|it| texts(it, all)),
        Value::Table(table) => table.values().for_each(|it| texts(it, all)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            all.push(value.to_string());
        }
    }
}

fn tables(value: &Value) -> Value {
    let each = value.as_array().into_iter().flatten();
    let each = each.map(|it| match it.as_table() {
        Some(it) => Value::Table(table(it)),
        None => Value::String(HIDDEN.to_owned()),
    });
    Value::Array(each.collect())
}

/// The settings that hold no secret.
const PLAIN: [&str; 70] = [
    "role",
    "state_dir",
    "socket",
    "socket_group",
    "log_format",
    "log_level",
    "metrics_listen",
    "page",
    "page_token_file",
    "listen",
    "advertise",
    "status_file",
    "mesh_v4",
    "mesh_v6",
    "policy_file",
    "epoch_seconds",
    "threshold",
    "max_benchmark_age",
    "metric_minimum",
    "required_signer",
    "evaluator",
    "harness",
    "suite",
    "suite_version",
    "probation_epochs",
    "passes_to_return",
    "failures_to_leave",
    "revoke",
    "lease_seconds",
    "on_lease_end",
    "floor_share",
    "floor_nodes",
    "enrolment",
    "adopt_log",
    "log_name",
    "keep_evidence_days",
    "name",
    "segments",
    "controller",
    "listen_port",
    "interface",
    "wireguard_dir",
    "firewall",
    "mtu",
    "persistent_keepalive",
    "advertise_routes",
    "accept_routes",
    "dns_listen",
    "dns_suffix",
    "dns_resolved",
    "hosts_file",
    "tun_backend",
    "tun_tcp_offload",
    "tun_udp_offload",
    "udp_gso",
    "udp_gro",
    "data_threads",
    "emitter",
    "emit_seconds",
    "mock_mean",
    "mock_jitter",
    "benchmark_timeout_seconds",
    "benchmark_file",
    "benchmark_directory",
    "benchmark_format",
    "benchmark_suite",
    "benchmark_suite_version",
    "benchmark_only",
    "benchmark_user",
    "probe_seconds",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all settings, as meshd's source declares them.
    fn declared() -> Vec<&'static str> {
        let source = include_str!("../../../meshd/src/settings.rs");
        let lines = source.lines().map(str::trim);
        let lines = lines.filter(|it| it.starts_with('[') && it.contains("\"MESHD_"));
        let names = lines.filter_map(|it| Some(it.split_once("] ")?.1.split_once(':')?.0));
        names.collect()
    }

    #[test]
    fn each_setting_of_meshd_is_known_and_no_other() {
        let declared = declared();
        assert!(declared.len() > 50, "{declared:?}");
        for name in &declared {
            assert!(is_setting(name), "{name}: show it, or hide it?");
        }
        for name in PLAIN {
            let of_segment = name == "name";
            assert!(declared.contains(&name) || of_segment, "{name}");
        }
    }

    #[test]
    fn values_of_other_names_and_secret_parts_are_hidden() {
        let text = "bench_api_key = 'sk-live-SECRET'\njoin = 'meshd1.SECRET'\nname = 'node-a'\n\
                    controller = ['https://me:SECRET@host:1/x?key=SECRET', 'me:SECRET@b:2', 'c:3']\n\
                    benchmark_command = '/bin/bench --password SECRETSECRET,--key=SECRET'\nemit_seconds = 7\n\
                    [credentials]\ntoken = 'SECRETSECRET'\n\
                    [[segment]]\nname = 'tools'\nmesh_v4 = '10.1.0.0/16'\npassword = 'SECRET'\n";
        let settings: Table = text.parse().unwrap();
        let shown = toml::to_string(&table(&settings)).unwrap();
        assert!(!shown.contains("SECRET"), "{shown}");
        for kept in [
            "bench_api_key",
            "node-a",
            "@host:1/x",
            "@b:2",
            "c:3",
            "/bin/bench (3 arguments",
            "emit_seconds = 7",
            "10.1.0.0/16",
        ] {
            assert!(shown.contains(kept), "no {kept}: {shown}");
        }
        let secrets = secrets(&settings);
        for hidden in ["sk-live-SECRET", "meshd1.SECRET", "SECRETSECRET"] {
            assert!(secrets.iter().any(|it| it == hidden), "{secrets:?}");
        }
        let variable: Table = "benchmark_command = 'KEY=SECRET /bin/bench'"
            .parse()
            .unwrap();
        let shown = table(&variable)["benchmark_command"].to_string();
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
