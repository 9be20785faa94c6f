//! Sizes and times, with their sources: the WireGuard whitepaper (section 6.1) where it says so,
//! ours where they are.

use std::time::Duration;

/// Bytes that WireGuard adds to an inner packet: 16 of header, 16 of tag (whitepaper, section 5.4.6).
pub const DATA_OVERHEAD: usize = 32;
/// The smallest buffer that any message is written to: a handshake initiation.
pub const MIN_BUFFER: usize = 148;
/// Inner packets are padded to a multiple of this (whitepaper, section 5.4.6).
pub const PADDING: usize = 16;
/// Largest UDP payload over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;

/// A session that sent is renewed after this (whitepaper, section 6.1).
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// A session is of no use after this (whitepaper, section 6.1).
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Nothing is sent on a session after this: the other side may have made it a round trip before, and
/// what is on its way takes time.
pub const SEND_FOR: Duration = Duration::from_secs(175);
/// A handshake that nobody waits for is given up after this (whitepaper, section 6.1).
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Having received and not sent for this long, a keepalive is sent (whitepaper, section 6.1).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Having sent and not received for this long, the session is taken for dead: KEEPALIVE_TIMEOUT plus
/// the whitepaper's REKEY_TIMEOUT of 5 s (section 6.5).
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// The same where the peer may be found elsewhere as well: other places are then looked for, while the session
/// goes on. Probes and most applications are answered sooner.
pub const SEARCH_AFTER: Duration = Duration::from_secs(4);
/// Before they are looked for anew: one that hears and has nothing to say is silent for KEEPALIVE_TIMEOUT.
pub const SEARCH_EVERY: Duration = Duration::from_secs(30);

/// The side that does not renew a session steps in when the other has not by then.
pub const RENEW_FALLBACK: Duration = Duration::from_secs(150);
/// A pair with data within this time shakes hands ahead of an epoch; others when they need to.
pub const ACTIVE_FOR: Duration = Duration::from_secs(60);
/// First wait for an answer to an initiation; doubled for each further one.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Initiations to where a peer was before others of its places are tried: 0.7 s.
pub const PATIENT_ATTEMPTS: u32 = 3;
/// Longest wait for an answer to an initiation: the whitepaper's REKEY_TIMEOUT.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// The same while an older generation still carries the pair's packets.
pub const RETRY_MAX_IN_USE: Duration = Duration::from_millis(400);
/// Generations of earlier epochs that are still accepted within the grace, per peer.
pub const MAX_PREVIOUS: usize = 3;
/// A peer whose initiation is too old is initiated to at most this often, and not this soon after one that
/// was news: the whitepaper's REKEY_TIMEOUT.
pub const INITIATE_BACK_AFTER: Duration = Duration::from_secs(5);
/// Over how much time a node that starts shakes hands with its peers.
pub const GREETING_SPREAD: Duration = Duration::from_secs(1);
/// With more peers than this a node that starts greets none of them: ten thousand handshakes in a second, most
/// of them for pairs that have nothing to say, would keep those waiting that have. A peer that still sends on a
/// session of before the start notices after [`DEAD_AFTER`].
pub const MAX_GREETED: usize = 256;
/// A counter from which on a session is of no use (whitepaper, section 6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Over how much time, per peer, the handshakes of an epoch are spread that came without a lead.
pub const SPREAD_PER_PEER: Duration = Duration::from_millis(8);
/// Over how much time at most: well within the shortest grace, half a second.
pub const MAX_SPREAD: Duration = Duration::from_millis(300);
/// How long the side that does not initiate rotations waits after an activation before it does.
pub const RESPONDER_PAUSE: Duration = Duration::from_millis(400);
/// Packets that wait for a session, per peer.
pub const MAX_QUEUED: usize = 64;
/// Endpoints that are remembered, per peer.
pub const MAX_ENDPOINTS: usize = 8;
/// Indices that one owner uses with one PSK.
pub const INDEX_VARIANTS: u8 = 8;
/// Initiations under way, per generation; with the sessions they lead to, within [`INDEX_VARIANTS`].
pub const MAX_INITIATIONS: usize = 5;
/// Answers that nothing has confirmed, per generation.
pub const MAX_ANSWERS: usize = 6;
/// Confirmed sessions, per generation: the one to send on, and those that the other side may send on.
pub const MAX_SESSIONS: usize = 3;
/// Initiations per second of one endpoint of a peer's that are opened without a cookie. Two generations
/// shake hands at once at most, and an initiation is tried again four times in its first second.
pub const INITIATIONS_PER_ENDPOINT: u32 = 10;
/// Handshake messages per second of one address and port that are opened with a cookie.
pub const PROVEN_PER_ENDPOINT: u32 = 10;
/// Responses per second and peer that are opened without a cookie: one for each initiation, and what
/// somebody may forge that reads the index under way.
pub const RESPONSES_PER_PEER: u32 = 10;
/// The part that strangers have, without a cookie, of what the endpoints of peers have together: members
/// behind an address translator, and those that moved, need no more.
pub const STRANGERS_PART: u32 = 4;
/// The same with a cookie.
pub const PROVEN_STRANGERS_PART: u32 = 2;
/// How many IPv4 addresses or IPv6 /64 it takes to use up what strangers have: one alone gets a tenth.
pub const NETWORKS_AT_FULL_RATE: u32 = 10;
/// Cookie replies per second to strangers. Where nobody is, a system looks for three seconds; Linux looks
/// for 1,024 neighbours at a time, and then for no more.
pub const STRANGERS_REPLIES: u32 = 250;
/// The same within an IPv4 /24 or IPv6 /64.
pub const REPLIES_PER_LINK: u32 = 50;
/// Tunnels of one node: one for each of its segments.
pub const MAX_TUNNELS: usize = 16;
/// The most handshakes per second that a [`crate::FrontDoor`] can be given; bounds the memory of the counts.
pub const MOST_PER_SECOND: u32 = 1 << 16;
/// How long a cookie that was received is used (whitepaper, section 5.4.7).
pub const COOKIE_FOR: Duration = Duration::from_secs(120);
/// Initiations per second and peer whose index names no generation of ours: stock WireGuard.
pub const STOCK_INITIATIONS_PER_SECOND: u32 = 2;
/// Initiations that are remembered whose index named no generation when they came:
/// one each 5 s while an update takes five minutes.
pub const MAX_UNNAMED: usize = 64;
/// Initiations that are remembered whose index named a generation: those of the last 27 s at four a
/// second, as at epochs of a second when half of what is sent is lost.
pub const MAX_NAMED: usize = 128;
/// ICMP errors per second that this host's applications are answered with, and at once after a rest.
pub const REFUSALS_PER_SECOND: u32 = 100;
