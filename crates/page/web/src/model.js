// A status as the views need it: the nodes of one segment with their pairs, and words for states.

/** A pair's letter in words, the worst last. */
export const PAIRS = {
  "-": "no tunnel",
  "w": "well",
  "?": "not reported",
  "l": "session of an old epoch",
  "d": "does not answer",
  "f": "fault on the way",
};
const WORST = "-w?ldf";

/** Why a state is what it is, in a word for people. */
export const STATES = {
  ACTIVE: "active", PROBATION: "on probation", IMPAIRED: "impaired", QUARANTINED: "quarantined", OFFLINE: "offline", EVICTED: "evicted",
};
const RANK = ["EVICTED", "OFFLINE", "QUARANTINED", "IMPAIRED", "PROBATION", "ACTIVE"];
export const rank = (state) => RANK.indexOf(state);

export class Model {
  constructor({ status, pairs }, segment) {
    this.status = status;
    this.segments = Object.keys(status.segments);
    this.segmentName = this.segments.includes(segment) ? segment : this.segments[0];
    this.segment = status.segments[this.segmentName];
    this.epoch = this.segment?.epoch ?? status.epoch;
    this.policy = this.segment?.policy ?? status.policy;
    this.pairs = pairs[this.segmentName] ?? { rows: [], sums: [], links: [], unwell: 0 };
    // In the order of the pairs: an object has names that are numbers before all others.
    const names = Object.keys(status.nodes).sort(), segments = (name) => status.nodes[name].segments;
    /** The nodes in the order of the pairs: those of the segment, and then those that are in none. They would be nowhere. */
    this.all = [...names.filter((name) => segments(name)[this.segmentName]), ...names.filter((name) => Object.keys(segments(name)).length === 0)];
    this.nodes = [];
    this.all.forEach((name, at) => {
      const node = status.nodes[name];
      const here = node.segments[this.segmentName];
      const [well, unwell, unknown, trip] = this.pairs.sums[at] ?? [0, 0, 0, null];
      this.nodes.push({
        name, at, node, well, unwell, unknown, trip,
        state: here?.state ?? node.state,
        member: (here?.membership ?? node.membership) === "ALLOWED",
        reason: node.eviction ? node.reason : here?.reason ?? node.reason,
        score: here ? here.score : node.score,
        held: this.epoch.held?.includes(name) ?? false,
      });
    });
    this.links = new Map();
    for (const link of this.pairs.links) this.links.set(link.from * 100000 + link.to, link);
  }

  /** What the node at `from` says of the one at `to`. */
  link(from, to) {
    return this.links.get(from * 100000 + to);
  }

  /** The letter of the pair, by the word of the first. */
  letter(from, to) {
    return this.pairs.rows ? this.pairs.rows[from]?.[to] ?? "-" : this.link(from, to)?.is ?? "?";
  }

  /** The letter of both directions together: the worse one, but a word of one side is better than none. */
  both(a, b) {
    const one = this.letter(a, b), other = this.letter(b, a);
    if (one === "w" && other === "?" || one === "?" && other === "w") return "w";
    return WORST.indexOf(one) > WORST.indexOf(other) ? one : other;
  }

  /** Conditions that somebody has to look at. */
  alarms() {
    return [...(this.status.alarms ?? []), ...(this.status.attention ?? [])];
  }

  /** How many are members, in words. */
  membersInWords() {
    const nodes = Object.values(this.status.nodes), members = nodes.filter((it) => it.membership === "ALLOWED").length;
    if (nodes.length === 0) return "no node has been enrolled yet";
    return `${members} of ${count(nodes.length, "node", "nodes")} ${members === 1 ? "is a member" : "are members"}`;
  }

  /** Whether a node is as it should be. A few pairs that are not well are told as pairs; with most of them, it is the node. */
  isWell(node) {
    return node.member && node.unwell <= node.well && ["ACTIVE", "PROBATION"].includes(node.state) && !(node.node.faults?.length) && !node.held;
  }
}

export const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

/** A number of seconds for people. */
export function seconds(n) {
  if (n < 0) n = 0;
  if (n < 120) return `${Math.round(n)} s`;
  if (n < 7200) return `${Math.floor(n / 60)} min ${Math.round(n % 60)} s`;
  return `${Math.floor(n / 3600)} h ${Math.floor((n % 3600) / 60)} min`;
}

export const millis = (n) => n === null || n === undefined ? "–" : `${n < 10 ? n.toFixed(2) : n.toFixed(1)} ms`;

/** How good a tunnel is, as one end says it: the age of its handshake, and the echoes that were lost of the last ones. */
export const quality = (it) => it.tunnel
  ? `handshake ${it.tunnel.handshake_seconds === null ? "none" : `${seconds(it.tunnel.handshake_seconds)} ago`}, ${lostEchoes(it)} echoes lost`
  : "handshake and loss not told";
export const lostEchoes = (it) => it.tunnel ? `${it.tunnel.lost} of ${it.tunnel.echoes}` : "–";
export const score = (n) => n === null || n === undefined ? "–" : n.toFixed(2);
