//! Doctor and `attention` tell one story: no area is well that a sentence of the status calls wrong, and nothing is wrong where
//! the status says that all is well. Refuses to drop a sentence: one that fits no area has an area of its own.

use super::{Finding, State, split};

/// The findings about a status, made to agree with what it says needs attention. `tells`: whether the daemon is of a version
/// that says so at all.
pub(super) fn reconciled(
    mut findings: Vec<Finding>,
    attention: &[String],
    tells: bool,
) -> Vec<Finding> {
    for sentence in attention {
        let area = area(sentence);
        let is_bad = |it: &Finding| it.state >= State::Warning;
        let is_told = findings.iter().any(|it| {
            is_bad(it) && (it.area == area || (area == ATTENTION && is_within(&it.seen, sentence)))
        });
        if is_told {
            continue;
        }
        findings.retain(|it| it.area != area || is_bad(it));
        let (seen, way_out) = split(sentence);
        let way_out = way_out.unwrap_or("`meshctl status` has more");
        // A thing that is about to happen keeps nothing from working yet.
        findings.push(if sentence.contains("about to") {
            Finding::warning(area, seen, way_out)
        } else {
            Finding::wrong(area, seen, way_out)
        });
    }
    let is_well = attention.is_empty() && tells;
    if is_well && !findings.iter().any(|it| it.area == "alarm") {
        for it in findings.iter_mut().filter(|it| it.state == State::Wrong) {
            // A state that has just begun, and may end by itself.
            it.state = State::Warning;
            it.seen.push_str("; the status does not count it yet");
        }
    }
    findings
}

/// Whether a finding says what a sentence says: one of them names the other's fault.
fn is_within(seen: &str, sentence: &str) -> bool {
    let fault = sentence.split_once(": ").map_or(sentence, |it| it.1);
    seen.contains(fault) || sentence.contains(seen)
}

/// The area that a sentence belongs to.
fn area(sentence: &str) -> &'static str {
    let found = AREAS.iter().find(|(words, _)| sentence.contains(words));
    found.map_or(ATTENTION, |(_, area)| area)
}

/// The area of a sentence that fits no other.
const ATTENTION: &str = "attention";
/// Words of sentences, each with the area that has the same; the first that stands in a sentence counts.
const AREAS: [(&str, &str); 22] = [
    ("runs with this node's keys", "identity"),
    ("this node is not enrolled", "enrolment"),
    ("waiting for approval", "enrolment"),
    ("the controller is silent", "controller"),
    ("the controller is not reached", "controller"),
    ("this clock differs", "clock"),
    ("clocks that differ", "clock"),
    ("of another version", "versions"),
    ("this node is no member", "membership"),
    ("no place in segment", "membership"),
    ("that do not answer", "peers"),
    ("no echo passes", "pairs"),
    ("not connected", "nodes"),
    ("the newest evidence was", "benchmark"),
    ("benchmark gives no results", "benchmark"),
    ("evidence is about to be too old", "benchmark"),
    ("the firewall table", "firewall"),
    ("too narrow for full packets", "mtu"),
    ("nobody is a member", "epoch"),
    ("should have ended", "epoch"),
    ("without epoch", "epoch"),
    ("still members", "epoch"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_that_needs_attention_is_not_well_and_a_sentence_is_never_lost() {
        let findings = || {
            vec![
                Finding::ok("nodes", "all of 2"),
                Finding::ok("clock", "kept"),
            ]
        };
        let gone = "nodes that are not connected: node-b; start them".to_owned();
        let strange = "the moon is full".to_owned();
        let told = reconciled(findings(), &[gone, strange], true);
        let states: Vec<_> = told.iter().map(|it| (it.area, it.state)).collect();
        assert_eq!(
            states,
            [
                ("clock", State::Ok),
                ("nodes", State::Wrong),
                (ATTENTION, State::Wrong)
            ]
        );
        assert_eq!(told[1].way_out.as_deref(), Some("start them"));
    }

    #[test]
    fn nothing_is_wrong_where_the_status_says_that_all_is_well() {
        let findings = || {
            vec![Finding::wrong(
                "pairs",
                "node-a to node-b: no session",
                "look",
            )]
        };
        let told = reconciled(findings(), &[], true);
        assert_eq!(told[0].state, State::Warning);
        let untold = reconciled(findings(), &[], false);
        assert_eq!(untold[0].state, State::Wrong, "an old daemon does not say");
    }

    #[test]
    fn a_fault_that_is_told_is_not_told_twice() {
        let seen = "meshd0: fd00::1/64 is missing; some packets pass";
        let found = vec![Finding::warning("interface", seen, "wait")];
        let told = reconciled(found, &["meshd0: fd00::1/64 is missing".to_owned()], true);
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
