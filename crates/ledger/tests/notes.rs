//! Notes, verifier keys, checkpoints and cosignatures against `signed_note` and `tlog_tiles`, ports of Go's
//! `sumdb/note` and `sumdb/tlog` by others: each side believes the other's, and nothing is believed here that is
//! refused there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ed25519_dalek::{Signer as _, SigningKey, Verifier as _, VerifyingKey};
use keys::{LogId, LogSecret, NodeSecret};
use ledger::note::{ALGORITHM_NOTE, Line, Note, Verifier};
use ledger::{Checkpoint, Hash, cosignature};
use proptest::prelude::*;
use signed_note as theirs;
use tlog_tiles::Checkpoint as TheirCheckpoint;

/// The same key for both: ours, and theirs in the form in which it is read.
fn secrets(name: &str, seed: u8) -> (LogSecret, theirs::StandardSigner, Verifier) {
    let seed = [seed; 32];
    let text = base64(&seed);
    let ours = LogSecret::from_base64(&text).unwrap();
    let verifier = Verifier::new(name, ours.public()).unwrap();
    let id = u32::from_be_bytes(verifier.id(ALGORITHM_NOTE));
    let key = base64(&[&[ALGORITHM_NOTE], seed.as_slice()].concat());
    let signer = theirs::StandardSigner::new(&format!("PRIVATE+KEY+{name}+{id:08x}+{key}"));
    (ours, signer.unwrap(), verifier)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The text, if their reader takes the note and the key signed it.
fn they_believe(note: &[u8], verifier: &Verifier) -> Option<Vec<u8>> {
    let key = theirs::StandardVerifier::new(&verifier.to_string()).unwrap();
    let known = theirs::VerifierList::new(vec![Box::new(key)]);
    let note = theirs::Note::from_bytes(note).ok()?;
    note.verify(&known).ok()?;
    Some(note.text().to_vec())
}

fn we_believe(note: &[u8], verifier: &Verifier) -> Option<Vec<u8>> {
    let note = Note::parse(note).ok()?;
    note.verify(verifier)
        .ok()
        .map(|text| text.as_bytes().to_vec())
}

/// Where the rules here are narrower on purpose: one signature by a key, no control character in a name, the one
/// form of base64 (which their base64 also asks for), and smaller limits.
fn is_narrower_here(note: &[u8], verifier: &Verifier) -> bool {
    let Ok(read) = Note::parse(note) else {
        let text = String::from_utf8_lossy(note);
        return text.chars().any(|c| c.is_control() && c != '\n');
    };
    let is_its = |line: &&Line| line.name == verifier.name();
    read.signatures().iter().filter(is_its).count() > 1
}

fn name() -> impl Strategy<Value = String> {
    "[^\\s\\pC+]{1,20}".prop_filter("a name", |name| Verifier::new(name, LogId([1; 32])).is_ok())
}

fn text() -> impl Strategy<Value = String> {
    "([^\\pC]{0,30}\n){1,6}"
}

#[derive(Debug, Clone)]
enum Edit {
    Put(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Drop(prop::sample::Index),
    Cut(prop::sample::Index),
    DoubleLine(prop::sample::Index),
    DropLine(prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || any::<prop::sample::Index>();
    let byte = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\n\n\r\t +=/0A-\x7f".to_vec())
        ]
    };
    prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (at(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        at().prop_map(Edit::Drop),
        at().prop_map(Edit::Cut),
        at().prop_map(Edit::DoubleLine),
        at().prop_map(Edit::DropLine),
        (at(), at()).prop_map(|(a, b)| Edit::SwapLines(a, b)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let len = bytes.len();
    let mut lines: Vec<Vec<u8>> = bytes
        .split_inclusive(|b| *b == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    match edit {
        Edit::Insert(at, byte) => bytes.insert(at.index(len + 1), *byte),
        _ if len == 0 => {}
        Edit::Put(at, byte) => bytes[at.index(len)] = *byte,
        Edit::Drop(at) => drop(bytes.remove(at.index(len))),
        Edit::Cut(at) => bytes.truncate(at.index(len)),
        Edit::DoubleLine(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at].clone());
            *bytes = lines.concat();
        }
        Edit::DropLine(at) => {
            lines.remove(at.index(lines.len()));
            *bytes = lines.concat();
        }
        Edit::SwapLines(a, b) => {
            let count = lines.len();
            lines.swap(a.index(count), b.index(count));
            *bytes = lines.concat();
        }
    }
}

#[test]
fn what_is_no_note_is_none_for_the_other_either() {
    let (secret, _, verifier) = secrets("log", 1);
    let note = Note::sign("text\n", "log", &secret).unwrap().to_string();
    assert!(we_believe(note.as_bytes(), &verifier).is_some());
    assert!(they_believe(note.as_bytes(), &verifier).is_some());
    let line = note.lines().last().unwrap();
    // Four bytes more than 3 n have bits to spare in their last character: another one has the same bytes.
    let encoded = line.rsplit(' ').next().unwrap();
    let last = encoded.trim_end_matches('=').chars().last().unwrap();
    let other = char::from_u32(u32::from(last) + 1).unwrap();
    let spare = line.replace(&format!("{last}="), &format!("{other}="));
    assert_ne!(spare, line);
    let notes = [
        format!("text\n{line}\n"),
        format!("text\n\n{line}"),
        format!("text\n\n{line}\n\n"),
        format!("text\n\n\n{line}\n"),
        format!("text\r\n\r\n{line}\n"),
        format!("te\txt\n\n{line}\n"),
        format!("text\n\n{line}\r\n"),
        format!("text\n\n{line} \n"),
        format!("text\n\n {line}\n"),
        format!("text\n\n{}\n", line.replace('—', "-")),
        format!("text\n\n{}\n", line.replace("— ", "—")),
        format!("text\n\n{}\n", line.replace(" log ", "  ")),
        format!("text\n\n{}\n", line.replace(" log ", " lo+g ")),
        format!("text\n\n{}\n", line.replace(" log ", " log  ")),
        format!("text\n\n{}\n", line.replace(" log ", " Log ")),
        format!("text\n\n{}\n", line.trim_end_matches('=')),
        format!("text\n\n{line}=\n"),
        // A stranger's line beside the good one spoils the note if it is no signature line at all.
        format!("text\n\n{line}\n{}\n", line.replace(" log ", " lo+g ")),
        format!("text\n\n{line}\n{}\n", line.replace(" log ", " lo\u{a0}g ")),
        format!("text\n\n{line}\n— log \n"),
        format!("text\n\n{spare}\n"),
        format!("text\n\n{}\n", format!("{line}\n").repeat(101)),
        "text\n\n— log AAAAAA==\n".to_owned(),
        "text\n\n— log AAAAAAA=\n".to_owned(),
        String::new(),
        "\n\n".to_owned(),
    ];
    for note in &notes {
        assert_eq!(
            we_believe(note.as_bytes(), &verifier),
            None,
            "ours: {note:?}"
        );
        assert_eq!(
            they_believe(note.as_bytes(), &verifier),
            None,
            "theirs: {note:?}"
        );
    }
}

#[test]
fn what_is_no_verifier_key_is_none_for_the_other_either() {
    let (_, _, verifier) = secrets("log", 1);
    let good = verifier.to_string();
    let [name, id, key] = good.splitn(3, '+').collect::<Vec<_>>().try_into().unwrap();
    assert!(theirs::StandardVerifier::new(&good).is_ok());
    let cosigner = [&[cosignature::ALGORITHM_COSIGNATURE], &verifier.key().0[..]].concat();
    let cosigner_id = u32::from_be_bytes(verifier.id(cosignature::ALGORITHM_COSIGNATURE));
    let unsound = Verifier::new("log", LogId([2; 32])).unwrap().to_string();
    for bad in [
        format!("{name}+{id}"),
        format!("+{id}+{key}"),
        format!("a b+{id}+{key}"),
        format!("Log+{id}+{key}"),
        format!("{name}+00000000+{key}"),
        format!("{name}+0{id}+{key}"),
        format!("{name}+{id}+{key}="),
        format!("{name}+{id}+"),
        format!("{name}+{id}+AAAA"),
        // A cosigner's key is no key of notes, with its own id or with the one of notes.
        format!("{name}+{cosigner_id:08x}+{}", base64(&cosigner)),
        format!("{name}+{id}+{}", base64(&cosigner)),
        // Two is the y of no point.
        unsound,
    ] {
        assert!(bad.parse::<Verifier>().is_err(), "ours: {bad}");
        assert!(
            theirs::StandardVerifier::new(&bad).is_err(),
            "theirs: {bad}"
        );
    }
    // Narrower here: the id in its one form, and no key of small order, for which anybody can sign.
    let weak = Verifier::new("log", LogId([0; 32])).unwrap().to_string();
    for bad in [good.replace(id, &id.to_uppercase()), weak] {
        if bad != good {
            assert!(bad.parse::<Verifier>().is_err(), "ours: {bad}");
            assert!(theirs::StandardVerifier::new(&bad).is_ok(), "theirs: {bad}");
        }
    }
}

#[test]
fn what_is_no_checkpoint_is_none_for_the_other_either() {
    let root = Hash::of_nothing().to_string();
    let good = format!("o\n1\n{root}\n");
    assert!(
        Checkpoint::parse(&good).is_ok() && TheirCheckpoint::from_bytes(good.as_bytes()).is_ok()
    );
    for bad in [
        String::new(),
        "\n".to_owned(),
        format!("\n1\n{root}\n"),
        format!("o\n01\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n-1\n{root}\n"),
        format!("o\n 1\n{root}\n"),
        format!("o\n0x1\n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("o\n1\n{root}"),
        format!("o\n1\n{root}\n\n"),
        format!("o\n1\n{root}\n\nmore\n"),
        format!("o\n1\n{root}\nmore"),
        format!("o\n1\n{}\n", root.trim_end_matches('=')),
        // The last character has two bits to spare.
        format!("o\n1\n{}\n", root.replace("U=", "V=")),
        "o\n1\nAAAA\n".to_owned(),
        "o\n1\n".to_owned(),
        format!("o\n{root}\n1\n"),
    ] {
        assert!(Checkpoint::parse(&bad).is_err(), "ours: {bad:?}");
        assert!(
            TheirCheckpoint::from_bytes(bad.as_bytes()).is_err(),
            "theirs: {bad:?}"
        );
    }
}

/// Verifies a cosignature as C2SP tlog-cosignature says, with nothing of ours; their note gives it the text.
struct Cosigner {
    name: String,
    id: u32,
    key: VerifyingKey,
}

impl theirs::Verifier for Cosigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((time, signature)) = signature.split_first_chunk::<8>() else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_slice(signature);
        let message = cosigned(text, u64::from_be_bytes(*time));
        signature.is_ok_and(|signature| self.key.verify(&message, &signature).is_ok())
    }
}

fn cosigned(text: &[u8], time: u64) -> Vec<u8> {
    [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat()
}

fn cosigner(name: &str, key: VerifyingKey) -> Cosigner {
    let id = theirs::key_id(name, &[&[0x04], key.as_bytes().as_slice()].concat());
    let name = name.to_owned();
    Cosigner { name, id, key }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn each_side_believes_the_notes_of_the_other(name in name(), other in name(), text in text()) {
        prop_assume!(name != other);
        let (secret, signer, verifier) = secrets(&name, 1);
        let (second, second_signer, second_verifier) = secrets(&other, 2);
        let mut ours = Note::sign(&text, &name, &secret).unwrap();
        ours.add(&other, &second).unwrap();
        let mut by_them = theirs::Note::new(text.as_bytes(), &[]).unwrap();
        by_them.add_sigs(&[&signer, &second_signer]).unwrap();
        let (ours, by_them) = (ours.to_string().into_bytes(), by_them.to_bytes());
        prop_assert_eq!(&ours, &by_them);
        for key in [&verifier, &second_verifier] {
            prop_assert_eq!(they_believe(&ours, key), Some(text.clone().into_bytes()));
            prop_assert_eq!(we_believe(&by_them, key), Some(text.clone().into_bytes()));
        }
        let (_, _, stranger) = secrets(&name, 3);
        prop_assert_eq!(they_believe(&ours, &stranger), None);
        prop_assert_eq!(we_believe(&ours, &stranger), None);
    }

    #[test]
    fn both_read_an_edited_note_alike(
        text in text(), edits in prop::collection::vec(edit(), 1..4),
    ) {
        let (secret, _, verifier) = secrets("log/1", 1);
        let (second, ..) = secrets("log/2", 2);
        let mut note = Note::sign(&text, "log/1", &secret).unwrap();
        note.add("log/2", &second).unwrap();
        let mut bytes = note.to_string().into_bytes();
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        let (ours, theirs) = (we_believe(&bytes, &verifier), they_believe(&bytes, &verifier));
        match (&ours, &theirs) {
            (None, Some(_)) => prop_assert!(is_narrower_here(&bytes, &verifier), "{:?}", bytes),
            _ => prop_assert_eq!(&ours, &theirs, "{:?}", bytes),
        }
        // Nothing but the text that was signed is ever believed.
        prop_assert!(theirs.is_none_or(|believed| believed == text.as_bytes()));
        // A note that either reads is printed as it was.
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes.clone());
            let read = theirs::Note::from_bytes(&bytes);
            prop_assert_eq!(read.map(|note| note.to_bytes()).ok(), Some(bytes));
        }
    }

    #[test]
    fn both_read_and_write_the_same_checkpoints(
        origin in name(), size: u64, root: [u8; 32], extensions in
        prop::collection::vec("[^\\pC]{1,20}", 0..3),
        edits in prop::collection::vec(edit(), 0..3),
    ) {
        let joined: String = extensions.iter().map(|line| format!("{line}\n")).collect();
        let theirs = TheirCheckpoint::new(&origin, size, tlog_tiles::Hash(root), &joined).unwrap();
        let ours = Checkpoint { origin, size, root: Hash(root), extensions };
        prop_assert_eq!(ours.to_string().into_bytes(), theirs.to_bytes());
        let (secret, _, verifier) = secrets(&ours.origin, 1);
        let note = ours.sign(&secret).unwrap().to_string();
        let text = they_believe(note.as_bytes(), &verifier).unwrap();
        prop_assert_eq!(TheirCheckpoint::from_bytes(&text).unwrap(), theirs);
        let mut bytes = text;
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        let (ours, theirs) = (Checkpoint::parse(&text), TheirCheckpoint::from_bytes(text.as_bytes()));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?}, {:?}", text, ours, theirs);
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.to_string(), text);
            let same = (ours.origin.as_str(), ours.size, ours.root.0);
            prop_assert_eq!(same, (theirs.origin(), theirs.size(), theirs.hash().0));
        }
    }

    #[test]
    fn each_side_believes_the_cosignatures_of_the_other(
        name in name(), size: u64, time: u64, later: u64, bit in 0usize..576,
    ) {
        let (secret, _, log) = secrets("log", 1);
        let checkpoint = Checkpoint {
            origin: "log".into(), size, root: Hash::of_nothing(), extensions: Vec::new(),
        };
        let note = checkpoint.sign(&secret).unwrap();
        let node = NodeSecret::from_base64(&base64(&[9; 32])).unwrap();
        let key = SigningKey::from_bytes(&[9; 32]);
        let witness = Verifier::new(&name, LogId(node.public().0)).unwrap();

        let mut ours = note.clone();
        ours.push(cosignature::cosign(&note, &name, time, &node).unwrap());
        let read = theirs::Note::from_bytes(ours.to_string().as_bytes()).unwrap();
        let known = || theirs::VerifierList::new(vec![Box::new(cosigner(&name, key.verifying_key()))]);
        prop_assert!(read.verify(&known()).is_ok());

        let signature = key.sign(&cosigned(note.text().as_bytes(), later)).to_bytes();
        let bytes = [&later.to_be_bytes()[..], &signature].concat();
        let id = cosigner(&name, key.verifying_key()).id;
        let line = theirs::Signature::new(name.clone(), id, bytes.clone()).unwrap();
        let by_them = theirs::Note::new(note.text().as_bytes(), &[line]).unwrap();
        let read = Note::parse(&by_them.to_bytes()).unwrap();
        prop_assert_eq!(cosignature::verify(&read, &witness), Ok(later));
        // It is the log's word for neither, and the log's signature is no cosignature.
        prop_assert!(read.verify(&log).is_err() && read.verify(&witness).is_err());
        prop_assert!(cosignature::verify(&note, &log).is_err());

        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        let line = theirs::Signature::new(name.clone(), id, changed).unwrap();
        let by_them = theirs::Note::new(note.text().as_bytes(), &[line]).unwrap();
        let read = Note::parse(&by_them.to_bytes()).unwrap();
        prop_assert!(cosignature::verify(&read, &witness).is_err());
        prop_assert!(by_them.verify(&known()).is_err());
    }
}
