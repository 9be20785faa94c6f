//! The tables of metrics in docs/OPERATIONS.md against what the roles declare. Refuses a table that has
//! drifted from the code. The exports of real daemons are held against the same tables in `e2e/metrics.rs`.

use exposition::Metric;
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
