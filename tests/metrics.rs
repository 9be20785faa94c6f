//! The tables of metrics in docs/OPERATIONS.md against what the roles declare. Refuses a table that has
//! drifted from the code. The exports of real daemons are held against the same tables in `e2e/metrics.rs`.

use exposition::Metric;
use std::collections::BTreeSet;
use std::path::Path;
use tests::metrics::{Described, documented};

/// A row, as far as the declaration knows it.
type Row = (String, String, (bool, Option<String>), String);

fn declared(metrics: &[Metric]) -> Vec<Row> {
    let row = |metric: &Metric| {
        let label = metric.label.map(str::to_owned);
        let kind = metric.kind.word().to_owned();
        let labels = (metric.in_segment, label);
        (metric.name.to_owned(), kind, labels, metric.help.to_owned())
    };
    metrics.iter().map(row).collect()
}

fn told(heading: &str) -> Vec<Row> {
    let rows = documented(heading).into_iter();
    let row = |(name, it): (String, Described)| {
        let label = it.label.map(|(key, _)| key);
        (name, it.kind, (it.in_segment, label), it.help)
    };
    rows.map(row).collect()
}

#[test]
fn the_documented_metrics_are_those_that_each_role_declares() {
    assert_eq!(told("Of a controller"), declared(controller::metrics::ALL));
    assert_eq!(told("Of a node"), declared(node::metrics::ALL));
    assert_eq!(told("Of either"), declared(exposition::process::ALL));
}

/// Every metric that an expression names.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_of_name(c));
    let named = words.filter(|it| it.starts_with("meshd_") || it.starts_with("process_"));
    named.map(str::to_owned).collect()
}

/// The expressions of the alert rules, one a line, and of the dashboard.
fn expressions() -> (Vec<String>, Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/prometheus");
    let read = |name| std::fs::read_to_string(folder.join(name)).expect("it is committed");
    let rules = read("alerts.yaml");
    let rules = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("dashboard.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels
        .iter()
        .flat_map(|it| it["targets"].as_array().expect("each has targets"));
    let shown = targets.map(|it| {
        it["expr"]
            .as_str()
            .expect("each has an expression")
            .to_owned()
    });
    (rules.map(str::to_owned).collect(), shown.collect())
}

#[test]
fn alerts_and_dashboard_name_metrics_and_labels_that_there_are() {
    let all = [
        controller::metrics::ALL,
        node::metrics::ALL,
        exposition::process::ALL,
    ]
    .concat();
    let known: BTreeSet<String> = all.iter().map(|it| it.name.to_owned()).collect();
    let labels = all
        .iter()
        .filter_map(|it| it.label)
        .chain(["segment", "job", "instance"]);
    let labels: BTreeSet<&str> = labels.collect();
    let (rules, shown) = expressions();
    assert!(rules.len() >= 15 && shown.len() >= 15);
    for expression in rules.iter().chain(&shown) {
        let named = named(expression);
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{expression}: {unknown:?}");
        // Matchers of labels: the word before `=`, `!=` and `=~` inside braces.
        for inside in expression.split('{').skip(1) {
            let inside = inside.split('}').next().unwrap_or_default();
            for matcher in inside.split(", ").filter(|it| it.contains('=')) {
                let label = matcher.split(['=', '!']).next().unwrap_or_default();
                assert!(labels.contains(label), "{expression}: no label `{label}`");
            }
        }
    }
}

#[test]
fn prometheus_reads_the_alert_rules() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/prometheus/alerts.yaml"
    );
    let said = std::process::Command::new("promtool")
        .args(["check", "rules", file])
        .output()
        .expect("promtool is installed: tests/tools promtool");
    assert!(said.status.success(), "{said:?}");
}
