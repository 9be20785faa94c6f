//! Archives that are made by hand, and broken by hand.

use super::*;

/// An archive with one member that is stored, whose parts a test may break.
struct Made {
    method: u16,
    name: &'static str,
    content: Vec<u8>,
    size: u32,
    crc: u32,
    times: u16,
}

impl Made {
    fn header() -> Self {
        let log = fixture("inspect/refusal.json");
        let mut crc = flate2::Crc::new();
        crc.update(&log);
        Self {
            method: 0,
            name: "header.json",
            size: u32::try_from(log.len()).unwrap(),
            crc: crc.sum(),
            content: log,
            times: 1,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let len = u32::try_from(self.content.len()).unwrap();
        let name_len = u16::try_from(self.name.len()).unwrap();
        let common = [
            &[20, 0, 0, 0][..],
            &self.method.to_le_bytes(),
            &[0; 4],
            &self.crc.to_le_bytes(),
            &len.to_le_bytes(),
            &self.size.to_le_bytes(),
            &name_len.to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        all.extend(b"PK\x03\x04");
        all.extend(&common);
        all.extend(self.name.as_bytes());
        all.extend(&self.content);
        let at = u32::try_from(all.len()).unwrap();
        for _ in 0..self.times {
            all.extend(b"PK\x01\x02\x14\x00");
            all.extend(&common);
            all.extend([0; 14]);
            all.extend(self.name.as_bytes());
        }
        let end = u32::try_from(all.len()).unwrap();
        all.extend(b"PK\x05\x06\0\0\0\0");
        all.extend(self.times.to_le_bytes());
        all.extend(self.times.to_le_bytes());
        all.extend((end - at).to_le_bytes());
        all.extend(at.to_le_bytes());
        all.extend([0, 0]);
        all
    }
}

#[test]
fn a_stored_header_is_read() {
    let run = only(Format::Inspect, &Made::header().bytes());
    assert_eq!(run.suite, "refusal");
}

#[test]
fn a_bomb_is_refused_by_what_it_says_and_by_what_it_is() {
    let mut declared = Made::header();
    declared.size = 17 << 20;
    assert!(refused(Format::Inspect, &declared.bytes()).contains("over 16 MiB"));
    // Ten megabytes of zeros, which say that they are a hundred bytes.
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut deflate, &vec![0; 10 << 20]).unwrap();
    let mut real = Made::header();
    (real.method, real.content, real.size) = (8, deflate.finish().unwrap(), 100);
    let refused_real = refused(Format::Inspect, &real.bytes());
    assert!(
        refused_real.contains("another length than it says"),
        "{refused_real}"
    );
    // A frame whose window is 2 GiB.
    let mut window = Made::header();
    window.method = 93;
    window.content = vec![
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0,
        21 << 3,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    assert!(refused(Format::Inspect, &window.bytes()).contains("over 16 MiB to be unpacked"));
}

#[test]
fn an_archive_that_is_not_as_it_should_be_is_refused() {
    type Breakage = (fn(&mut Made), &'static str);
    let breakages: [Breakage; 5] = [
        (|it| it.times = 2, "has two headers"),
        (|it| it.name = "other.json", "has no member `header.json`"),
        (|it| it.method = 12, "by a method that is not 0, 8 or 93"),
        (|it| it.crc ^= 1, "a wrong checksum"),
        (|it| it.method = 93, "needs over 16 MiB"),
    ];
    for (breakage, expected) in breakages {
        let mut broken = Made::header();
        breakage(&mut broken);
        let refused = refused(Format::Inspect, &broken.bytes());
        assert!(refused.contains(expected), "{refused}");
    }
    let whole = fixture("inspect/refusal.eval");
    for cut in [4, 100, whole.len() - 1] {
        let refused = refused(Format::Inspect, &whole[..cut]);
        assert!(refused.contains("has no end: it is not whole"), "{refused}");
    }
}

#[test]
fn an_archive_with_more_members_than_a_small_directory_counts_is_read() {
    let made = Made::header().bytes();
    let end = made.len() - 22;
    let number = |at: usize| u32::from_le_bytes(made[at..at + 4].try_into().unwrap());
    let (len, at) = (number(end + 12), number(end + 16));
    let mut large = made[..end].to_vec();
    large.extend(b"PK\x06\x06");
    large.extend([0; 20]);
    large.extend(1u64.to_le_bytes());
    large.extend(1u64.to_le_bytes());
    large.extend(u64::from(len).to_le_bytes());
    large.extend(u64::from(at).to_le_bytes());
    large.extend(b"PK\x06\x07\0\0\0\0");
    large.extend(u64::try_from(end).unwrap().to_le_bytes());
    large.extend([1, 0, 0, 0]);
    large.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    assert_eq!(only(Format::Inspect, &large).suite, "refusal");
}
