//! Names: what a host asks of the responder, and a hosts file that somebody else wrote.

use ::names::{Host, Outcome, Suffix, Transport, Zone, answer, with_block};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A zone of two segments.
fn zone() -> Zone {
    let host = |number: u8, segment: &str, is_home| Host {
        name: format!("node-{number}").parse().expect("a name"),
        segment: Some(segment.parse().expect("a name")),
        is_home,
        v4: Ipv4Addr::new(10, 76, 0, number),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
    };
    let hosts = [
        host(1, "training", true),
        host(2, "training", true),
        host(3, "inference", false),
    ];
    let ranges = vec![
        (IpAddr::V4(Ipv4Addr::new(10, 76, 0, 0)), 15),
        (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)), 64),
    ];
    Zone::new(Suffix::default(), &hosts, ranges)
}

/// A DNS message to the responder: answered within the limit of its transport, with its number, or not at all.
pub fn question(data: &[u8]) {
    let zone = zone();
    for (transport, limit) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        let answered = answer(&zone, data, transport);
        let Some(bytes) = answered.bytes else {
            assert_eq!(answered.outcome, Outcome::Malformed);
            continue;
        };
        assert!(bytes.len() <= limit && bytes.len() >= 12);
        assert_eq!(bytes[..2], data[..2], "the number of the question");
        assert!(bytes[2] & 0x80 != 0, "it is an answer");
        // An answer is not answered: two responders would go on for ever.
        assert_eq!(answer(&zone, &bytes, transport).bytes, None);
    }
}

/// A hosts file: what is outside the block stays as it is, and the block goes as it came.
pub fn hosts_file(data: &[u8]) {
    let lines = "10.76.0.1 node-1.mesh.internal\n";
    let Ok(with) = with_block(data, "fuzz", lines) else {
        return;
    };
    let again = with_block(&with, "fuzz", lines).expect("it was written by us");
    assert_eq!(again, with, "a second time changes nothing");
    let without = with_block(&with, "fuzz", "").expect("it was written by us");
    let before = with_block(data, "fuzz", "").expect("it was taken with lines");
    // The block begins on a line of its own.
    let mut ended = before.clone();
    if before.last().is_some_and(|last| *last != b'\n') {
        ended.push(b'\n');
    }
    assert!(without == before || without == ended);
}

/// Questions that a host asks, and answers that nobody should.
pub fn questions() -> Vec<Vec<u8>> {
    let question = |labels: &[&str], kind: u16, edns: bool| {
        let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        for label in labels {
            bytes.push(u8::try_from(label.len()).expect("a label"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        if edns {
            bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    };
    let suffix = Suffix::default();
    let under = |labels: &[&'static str]| -> Vec<String> {
        let labels = labels.iter().map(|it| (*it).to_owned());
        labels
            .chain(suffix.as_str().split('.').map(str::to_owned))
            .collect()
    };
    let of = |labels: &[&'static str], kind, edns| {
        let labels = under(labels);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        question(&labels, kind, edns)
    };
    vec![
        of(&["node-1"], 1, true),
        of(&["NODE-2"], 28, false),
        of(&["node-3", "inference"], 255, true),
        of(&["inference"], 1, false),
        of(&["nobody"], 1, true),
        of(&[], 6, true),
        question(&["1", "0", "76", "10", "in-addr", "arpa"], 12, true),
        question(&["example", "org"], 1, false),
    ]
}

/// Files with and without a block.
pub fn hosts_files() -> Vec<Vec<u8>> {
    let block = "# BEGIN meshd fuzz (written by meshd; changes here are lost)\n10.76.0.9 gone\n# END meshd fuzz\n";
    [
        String::new(),
        "127.0.0.1 localhost".to_owned(),
        format!("127.0.0.1 localhost\n{block}::1 localhost\n"),
        format!("{block}{block}"),
        "# END meshd fuzz\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
