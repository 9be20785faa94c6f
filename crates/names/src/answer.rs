//! Answers to DNS messages (RFC 1034, RFC 1035), each made from one zone and one request alone.
//!
//! This is an authoritative server and no resolver: a name of another zone is REFUSED, and nothing is asked of others.
//! Every answer has a TTL of 0, and so has every denial (RFC 2308, section 5): a node that is cut off is gone with the
//! next question. The records of SOA and NS name `localhost`, as RFC 6303 does for zones that are everybody's own.
//!
//! The file is long because its tests ask every kind of question.

use crate::zone::{Found, Zone};
use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AnswerBuilder, AuthorityBuilder, PushError};
use domain::base::name::{NameBuilder, ParsedName};
use domain::base::{
    Message, MessageBuilder, Name, Question, Rtype, Serial, StaticCompressor, ToName, Ttl,
};
use domain::rdata::{A, Aaaa, Ns, Ptr, Soa};

/// How a message came, and so how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// At most what the request allows, and 1,232 bytes: what passes every path unfragmented (DNS flag day 2020).
    Udp,
    /// At most 65,535 bytes.
    Tcp,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The name exists, and has what was asked for.
    Found,
    /// The name exists, and has nothing of the kind (NODATA).
    Empty,
    /// There is no such name (NXDOMAIN).
    NoName,
    /// It was for another zone, or for something that is not done here.
    Refused,
    /// It was no question that can be read.
    Malformed,
}

/// An answer; without bytes where there is none to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The fate of the request.
    pub outcome: Outcome,
    /// The answer; `None`: what came was too short for a header, or itself an answer.
    pub bytes: Option<Vec<u8>>,
}

/// Answers a request by a zone. Any bytes may come; none panic.
pub fn answer(zone: &Zone, request: &[u8], transport: Transport) -> Answered {
    let silent = Answered {
        outcome: Outcome::Malformed,
        bytes: None,
    };
    let Ok(message) = Message::from_octets(request) else {
        return silent;
    };
    // An answer to an answer could go round for ever.
    if message.header().qr() {
        return silent;
    }
    let edns = message.opt();
    let limit = match (transport, &edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => PLAIN_LEN,
        (Transport::Udp, Some(opt)) => {
            usize::from(opt.udp_payload_size().clamp(PLAIN_LEN_U16, EDNS_LEN))
        }
    };
    let verdict = judge(zone, &message);
    let made = compose(&message, edns.is_some(), &verdict, limit);
    // The question alone is within any limit; it is only left out where it cannot be read.
    let made = made.or_else(|_| compose(&message, edns.is_some(), &Verdict::Truncated, limit));
    Answered {
        outcome: verdict.outcome(),
        bytes: made.ok(),
    }
}

/// The answer before it is written.
enum Verdict<'z> {
    Error(OptRcode),
    /// The answer does not fit; by TCP it does.
    Truncated,
    Ours(Asked, Found<'z>),
}

/// The question, as far as it is answered.
struct Asked {
    kind: Rtype,
    name: Name<Vec<u8>>,
}

impl Asked {
    fn wants(&self, kind: Rtype) -> bool {
        self.kind == kind || self.kind == Rtype::ANY
    }
}

impl Verdict<'_> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Error(OptRcode::FORMERR) => Outcome::Malformed,
            Self::Error(_) | Self::Truncated | Self::Ours(_, Found::Elsewhere) => Outcome::Refused,
            Self::Ours(_, Found::Nothing { .. }) => Outcome::NoName,
            Self::Ours(asked, found) => {
                let has = match found {
                    Found::Apex { .. } => asked.wants(Rtype::SOA) || asked.wants(Rtype::NS),
                    Found::Host { .. } => asked.wants(Rtype::A) || asked.wants(Rtype::AAAA),
                    Found::Address { .. } => asked.wants(Rtype::PTR),
                    Found::Inner { .. } | Found::Elsewhere | Found::Nothing { .. } => false,
                };
                if has { Outcome::Found } else { Outcome::Empty }
            }
        }
    }
}

fn judge<'z>(zone: &'z Zone, message: &Message<&[u8]>) -> Verdict<'z> {
    if message.header().opcode() != Opcode::QUERY {
        return Verdict::Error(OptRcode::NOTIMP);
    }
    if message.opt().is_some_and(|opt| opt.version() > 0) {
        return Verdict::Error(OptRcode::BADVERS);
    }
    let question: Question<ParsedName<&[u8]>> = match message.sole_question() {
        Ok(question) => question,
        Err(_) => return Verdict::Error(OptRcode::FORMERR),
    };
    let class = question.qclass();
    let transfer = matches!(question.qtype(), Rtype::AXFR | Rtype::IXFR);
    if transfer || !matches!(class, Class::IN | Class::ANY) {
        return Verdict::Error(OptRcode::REFUSED);
    }
    let name: Name<Vec<u8>> = question.qname().to_name();
    let labels = name.iter().filter(|label| !label.is_root());
    let labels: Vec<Vec<u8>> = labels
        .map(|it| it.as_slice().to_ascii_lowercase())
        .collect();
    match zone.find(&labels) {
        Found::Elsewhere => Verdict::Error(OptRcode::REFUSED),
        found => Verdict::Ours(
            Asked {
                kind: question.qtype(),
                name,
            },
            found,
        ),
    }
}

type Target = StaticCompressor<Vec<u8>>;

fn compose(
    message: &Message<&[u8]>,
    has_edns: bool,
    verdict: &Verdict<'_>,
    limit: usize,
) -> Result<Vec<u8>, PushError> {
    // A vector takes all that is written to it.
    let Ok(mut builder) = MessageBuilder::from_target(Target::new(Vec::with_capacity(PLAIN_LEN)));
    builder.set_push_limit(limit);
    let rcode = match verdict {
        Verdict::Error(code) => *code,
        Verdict::Ours(_, Found::Nothing { .. }) => OptRcode::NXDOMAIN,
        Verdict::Truncated | Verdict::Ours(..) => OptRcode::NOERROR,
    };
    let mut answer = builder.start_error(message, Rcode::NOERROR);
    let header = answer.header_mut();
    header.set_rcode(rcode.rcode());
    header.set_aa(matches!(verdict, Verdict::Ours(..)));
    header.set_tc(matches!(verdict, Verdict::Truncated));
    let authority = match verdict {
        Verdict::Error(_) | Verdict::Truncated => answer.authority(),
        Verdict::Ours(asked, found) => records(answer, asked, found)?,
    };
    let mut additional = authority.additional();
    if has_edns {
        additional.opt(|opt| {
            opt.set_udp_payload_size(EDNS_LEN);
            opt.set_rcode(rcode);
            Ok(())
        })?;
    }
    Ok(additional.finish().into_target())
}

fn records(
    mut answer: AnswerBuilder<Target>,
    asked: &Asked,
    found: &Found<'_>,
) -> Result<AuthorityBuilder<Target>, PushError> {
    let before = answer.counts().ancount();
    let owner = &asked.name;
    let labels = match *found {
        Found::Host { labels, v4, v6 } => {
            if asked.wants(Rtype::A) {
                answer.push((owner, NOT_KEPT, A::new(v4)))?;
            }
            if asked.wants(Rtype::AAAA) {
                answer.push((owner, NOT_KEPT, Aaaa::new(v6)))?;
            }
            labels
        }
        Found::Address { labels, name } => {
            if asked.wants(Rtype::PTR) {
                let name = Name::<Vec<u8>>::vec_from_str(name).map_err(|_| PushError::ShortBuf)?;
                answer.push((owner, NOT_KEPT, Ptr::new(name)))?;
            }
            labels
        }
        Found::Apex { labels } => {
            if asked.wants(Rtype::SOA) {
                answer.push((owner, NOT_KEPT, soa()?))?;
            }
            if asked.wants(Rtype::NS) {
                answer.push((owner, NOT_KEPT, Ns::new(name(&[b"localhost"])?)))?;
            }
            labels
        }
        Found::Inner { labels } | Found::Nothing { labels } => labels,
        Found::Elsewhere => return Ok(answer.authority()),
    };
    let is_empty = answer.counts().ancount() == before;
    let mut authority = answer.authority();
    if is_empty {
        // RFC 2308, section 3: the denial carries the zone's SOA.
        authority.push((apex(owner, labels)?, NOT_KEPT, soa()?))?;
    }
    Ok(authority)
}

/// The last `labels` labels of a name.
fn apex(owner: &Name<Vec<u8>>, labels: usize) -> Result<Name<Vec<u8>>, PushError> {
    let all: Vec<_> = owner.iter().filter(|label| !label.is_root()).collect();
    let from = all.len().saturating_sub(labels);
    let end: Vec<&[u8]> = all.iter().skip(from).map(|it| it.as_slice()).collect();
    name(&end)
}

fn name(labels: &[&[u8]]) -> Result<Name<Vec<u8>>, PushError> {
    let mut builder = NameBuilder::new_vec();
    for label in labels {
        builder
            .append_label(label)
            .map_err(|_| PushError::ShortBuf)?;
    }
    builder.into_name().map_err(|_| PushError::ShortBuf)
}

/// Nobody transfers the zone, so that its serial says nothing.
fn soa() -> Result<Soa<Name<Vec<u8>>>, PushError> {
    let (server, mailbox) = (name(&[b"localhost"])?, name(&[b"nobody", b"invalid"])?);
    Ok(Soa::new(
        server,
        mailbox,
        Serial(1),
        Ttl::from_secs(3600),
        Ttl::from_secs(1200),
        Ttl::from_secs(604_800),
        NOT_KEPT,
    ))
}

const NOT_KEPT: Ttl = Ttl::ZERO;
/// Longest message by UDP without EDNS, in bytes (RFC 1035, section 2.3.4).
const PLAIN_LEN: usize = 512;
const PLAIN_LEN_U16: u16 = 512;
/// Longest message by UDP with EDNS that is made here, in bytes.
const EDNS_LEN: u16 = 1232;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, Suffix};
    use domain::base::iana::Rcode;
    use domain::rdata::AllRecordData;
    use proptest::prelude::*;

    fn zone() -> Zone {
        let host = |name: &str, last: u8| Host {
            name: name.parse().unwrap(),
            segment: None,
            is_home: true,
            v4: [10, 76, 0, last].into(),
            v6: format!("fd00::{last:x}").parse().unwrap(),
        };
        let hosts = [host("node-a", 1), host("node-b", 2)];
        let ranges = vec![
            ("10.76.0.0".parse().unwrap(), 16),
            ("fd00::".parse().unwrap(), 64),
        ];
        Zone::new(Suffix::default(), &hosts, ranges)
    }

    /// A question; with a size, by EDNS.
    fn ask(name: &str, kind: Rtype, edns: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x1234);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        let name = Name::<Vec<u8>>::vec_from_str(name).unwrap();
        question.push((&name, kind)).unwrap();
        let mut additional = question.additional();
        if let Some(size) = edns {
            let size = |opt: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
                opt.set_udp_payload_size(size);
                Ok(())
            };
            additional.opt(size).unwrap();
        }
        additional.finish()
    }

    /// An answer's records with their sections, as text, after its outcome and code.
    fn said(request: &[u8]) -> (Outcome, Rcode, Vec<String>) {
        let answered = answer(&zone(), request, Transport::Udp);
        let bytes = answered.bytes.expect("an answer");
        let message = Message::from_octets(&bytes[..]).unwrap();
        let header = message.header();
        assert!(header.qr() && !header.ra() && !header.tc());
        assert_eq!((header.id(), header.rd()), (0x1234, true));
        let code = message
            .opt()
            .map_or(header.rcode(), |opt| opt.rcode(header).rcode());
        let records = message.iter().map(|it| {
            let (record, section) = it.unwrap();
            assert_eq!(record.ttl(), Ttl::ZERO);
            let record = record
                .into_record::<AllRecordData<_, _>>()
                .unwrap()
                .unwrap();
            format!(
                "{section:?} {} {} {}",
                record.owner(),
                record.rtype(),
                record.data()
            )
        });
        let records = records.filter(|it| !it.starts_with("Additional"));
        (answered.outcome, code, records.collect())
    }

    fn told(name: &str, kind: Rtype) -> (Outcome, Rcode, Vec<String>) {
        let plain = said(&ask(name, kind, None));
        assert_eq!(
            said(&ask(name, kind, Some(4096))),
            plain,
            "EDNS changes nothing"
        );
        plain
    }

    const SOA: &str = "SOA localhost. nobody.invalid. 1 3600 1200 604800 0";

    #[test]
    fn members_have_addresses_and_their_addresses_have_names() {
        let (found, fine) = (Outcome::Found, Rcode::NOERROR);
        let record = "Answer node-b.mesh.internal A 10.76.0.2".to_owned();
        assert_eq!(
            told("node-b.mesh.internal", Rtype::A),
            (found, fine, vec![record])
        );
        let record = "Answer NODE-b.Mesh.internal AAAA fd00::2".to_owned();
        assert_eq!(
            told("NODE-b.Mesh.internal", Rtype::AAAA),
            (found, fine, vec![record])
        );
        assert_eq!(told("node-b.mesh.internal", Rtype::ANY).2.len(), 2);
        let record = "Answer 1.0.76.10.in-addr.arpa PTR node-a.mesh.internal.".to_owned();
        assert_eq!(
            told("1.0.76.10.in-addr.arpa", Rtype::PTR),
            (found, fine, vec![record])
        );
        let reverse = format!("1.{}d.f.ip6.arpa", "0.".repeat(29));
        let record = format!("Answer {reverse} PTR node-a.mesh.internal.");
        assert_eq!(told(&reverse, Rtype::PTR), (found, fine, vec![record]));
        let record = format!("Answer mesh.internal {SOA}");
        assert_eq!(
            told("mesh.internal", Rtype::SOA),
            (found, fine, vec![record])
        );
        let record = "Answer mesh.internal NS localhost.".to_owned();
        assert_eq!(
            told("mesh.internal", Rtype::NS),
            (found, fine, vec![record])
        );
    }

    #[test]
    fn a_name_without_what_is_asked_is_no_name_that_does_not_exist() {
        let denial = |apex: &str| vec![format!("Authority {apex} {SOA}")];
        let own = denial("mesh.internal");
        let empty = (Outcome::Empty, Rcode::NOERROR, own.clone());
        assert_eq!(told("node-b.mesh.internal", Rtype::MX), empty);
        assert_eq!(told("mesh.internal", Rtype::A), empty);
        let no_name = (Outcome::NoName, Rcode::NXDOMAIN, own);
        assert_eq!(told("node-c.mesh.internal", Rtype::A), no_name);
        assert_eq!(told("a.node-b.mesh.internal", Rtype::A), no_name);
        let reverse = denial("76.10.in-addr.arpa");
        let no_name = (Outcome::NoName, Rcode::NXDOMAIN, reverse);
        assert_eq!(told("9.0.76.10.in-addr.arpa", Rtype::PTR), no_name);
    }

    #[test]
    fn nothing_is_asked_of_others() {
        let refused = (Outcome::Refused, Rcode::REFUSED, Vec::new());
        assert_eq!(told("example.org", Rtype::A), refused);
        assert_eq!(told(".", Rtype::NS), refused);
        assert_eq!(told("1.0.0.127.in-addr.arpa", Rtype::PTR), refused);
        assert_eq!(told("mesh.internal", Rtype::AXFR), refused);
        let mut update = ask("mesh.internal", Rtype::SOA, None);
        update[2] = 5 << 3 | 1;
        assert_eq!(said(&update).1, Rcode::NOTIMP);
        let mut chaos = ask("node-b.mesh.internal", Rtype::A, None);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(said(&chaos).1, Rcode::REFUSED);
    }

    #[test]
    fn what_cannot_be_read_is_said_or_left_unanswered() {
        let none = |bytes: &[u8]| answer(&zone(), bytes, Transport::Udp).bytes.is_none();
        let question = ask("node-b.mesh.internal", Rtype::A, None);
        assert!(none(b"") && none(&question[..11]));
        let mut an_answer = question.clone();
        an_answer[2] |= 0x80;
        assert!(none(&an_answer), "an answer is not answered");
        let malformed = (Outcome::Malformed, Rcode::FORMERR, Vec::new());
        assert_eq!(said(&question[..question.len() - 1]), malformed);
        let mut two = question.clone();
        two[5] = 2;
        two.extend_from_slice(&question[12..]);
        assert_eq!(said(&two).1, Rcode::FORMERR);
        // Version 1 of EDNS: its field is the second byte of the TTL, seven before the end.
        let mut newer = ask("node-b.mesh.internal", Rtype::A, Some(1232));
        let at = newer.len() - 5;
        newer[at] = 1;
        let bytes = answer(&zone(), &newer, Transport::Udp).bytes.unwrap();
        let message = Message::from_octets(&bytes[..]).unwrap();
        let opt = message.opt().expect("it is answered by EDNS");
        assert_eq!(opt.rcode(message.header()), OptRcode::BADVERS);
    }

    #[test]
    fn an_answer_that_is_too_long_for_udp_says_so_and_fits_tcp() {
        let label = "a".repeat(63);
        let suffix: Suffix = [&label[..], &label[..60]].join(".").parse().unwrap();
        let host = Host {
            name: label.parse().unwrap(),
            segment: Some(label.parse().unwrap()),
            is_home: false,
            v4: [10, 0, 0, 1].into(),
            v6: "fd00::1".parse().unwrap(),
        };
        let zone = Zone::new(
            suffix.clone(),
            &[host],
            vec![("fd00::".parse().unwrap(), 64)],
        );
        let question = ask(&format!("{label}.{label}.{suffix}"), Rtype::A, None);
        let bytes = answer(&zone, &question, Transport::Udp).bytes.unwrap();
        assert!(
            bytes.len() <= PLAIN_LEN,
            "names are compressed: {}",
            bytes.len()
        );
        let message = Message::from_octets(&question[..]).unwrap();
        let verdict = judge(&zone, &message);
        let short = compose(&message, false, &verdict, question.len() + 8);
        assert!(short.is_err(), "there is no room for a record");
        let short = compose(&message, false, &Verdict::Truncated, question.len() + 8).unwrap();
        let short = Message::from_octets(&short[..]).unwrap();
        assert!(short.header().tc() && short.header_counts().ancount() == 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_within_the_limit_or_not_at_all(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
            plain: bool,
        ) {
            // Mostly one question, so that more than the header is read.
            if let (true, Some(head)) = (plain, bytes.get_mut(2..12)) {
                head.copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            let answered = answer(&zone(), &bytes, Transport::Udp);
            if let Some(answer) = answered.bytes {
                prop_assert!(answer.len() <= usize::from(EDNS_LEN));
                let message = Message::from_octets(&answer[..]).unwrap();
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(message.header().qr());
            }
        }

        #[test]
        fn a_question_that_was_cut_or_changed_never_panics(at in 0..60_usize, byte: u8, cut in 12..60_usize) {
            let mut bytes = ask("node-b.mesh.internal", Rtype::A, Some(512));
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(cut);
            let _ = answer(&zone(), &bytes, Transport::Tcp);
        }
    }
}
