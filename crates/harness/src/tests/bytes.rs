//! Changed bytes anywhere in a real file.

use super::*;
use proptest::prelude::*;

fn any_fixture() -> impl Strategy<Value = (Format, Vec<u8>)> {
    let all = [
        (Format::Inspect, "inspect/refusal.eval"),
        (Format::Inspect, "inspect/refusal-deflate.eval"),
        (Format::LmEval, "lm-eval/results.json"),
        (Format::Junit, "junit/pytest.xml"),
        (Format::Junit, "junit/node.xml"),
    ];
    (0..all.len()).prop_map(move |n| (all[n].0, fixture(all[n].1)))
}

proptest! {
    #[test]
    fn a_file_with_changed_bytes_is_a_run_that_keeps_the_rules_or_an_error(
        (format, bytes) in any_fixture(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes;
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for run in read_as(format, &bytes, &Labels::default()).into_iter().flatten() {
            prop_assert_eq!(run.check(), Ok(()));
            prop_assert!(run.finished_at <= now().checked_add(MAX_AHEAD).unwrap());
        }
    }
}
