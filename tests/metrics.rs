//! The tables of metrics in docs/OPERATIONS.md against what the roles declare. Refuses a table that has
//! drifted from the code. The exports of real daemons are held against the same tables in `e2e/metrics.rs`.

use exposition::Metric;
use tests::metrics::documented;

/// A row, as far as the declaration knows it.
type Row = (String, String, Option<String>, String);

fn declared(metrics: &[Metric]) -> Vec<Row> {
    let row = |metric: &Metric| {
        let label = metric.label.map(str::to_owned);
        let kind = metric.kind.word().to_owned();
        (metric.name.to_owned(), kind, label, metric.help.to_owned())
    };
    metrics.iter().map(row).collect()
}

fn told(heading: &str) -> Vec<Row> {
    let rows = documented(heading).into_iter();
    rows.map(|(name, it)| (name, it.kind, it.label.map(|(key, _)| key), it.help))
        .collect()
}

#[test]
fn the_documented_metrics_are_those_that_each_role_declares() {
    assert_eq!(told("Of a controller"), declared(controller::metrics::ALL));
    assert_eq!(told("Of a node"), declared(node::metrics::ALL));
}
