// Events in words, as `meshctl events` tells them; kinds that have none here are told field by field.

const list = (label, names) => names.length === 0 ? "" : `; ${label}: ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`;
const because = (body) => body.reason ? `: ${body.reason}` : "";

const KINDS = {
  mesh_created: () => "mesh created",
  controller_started: () => "controller started",
  policy_changed: (it, of) => `another policy is in force${of}`,
  token_created: (it) => `token ${it.id} created${it.name ? ` for ${it.name}` : ""}`,
  token_revoked: (it) => `token ${it.id} revoked`,
  node_waiting: (it) => `${it.name} waits for approval`,
  node_rejected: (it) => `${it.name} rejected${because(it)}`,
  node_enrolled: (it) => `${it.name} enrolled with token ${it.token}`,
  node_rekeyed: (it) => `${it.name} has new keys, with token ${it.token}`,
  node_evicted: (it) => `${it.name} evicted${because(it)}`,
  node_readmitted: (it) => `${it.name} readmitted`,
  node_removed: (it) => `${it.name} removed for good${because(it)}`,
  override_set: (it) => `${it.name} overridden for ${it.seconds} s, ${typeof it.ruling === "string" ? it.ruling : `threshold ${it.ruling?.threshold}`}${because(it)}`,
  override_cleared: (it) => `${it.name} is overridden no more`,
  group_changed: (it) => `${it.name} ${it.member ? "into" : "out of"} group ${it.group}`,
  evidence_accepted: (it) => `${it.name}: evidence${typeof it.overall === "number" ? ` ${it.overall.toFixed(2)}` : ""} in ${it.suite} ${it.suite_version}`,
  decided: (it, of) => {
    const denied = (it.nodes ?? []).filter((node) => String(node.membership).toLowerCase() !== "allowed");
    return `epoch ${it.epoch}${of}: judged${list("out", denied.map((node) => node.reason ? `${node.name} (${node.reason})` : node.name))}`;
  },
  epoch_published: (it, of) => `epoch ${it.epoch}${of} published (${it.cause}), members ${it.members}${list("in", it.joined ?? [])}${list("out", Object.entries(it.removed ?? {}).map(([name, why]) => `${name} (${why})`))}`,
  duplicate_seen: (it) => `two machines run with the keys of ${it.name}: ${it.first?.address} stays, ${it.other?.address} is refused`,
};

/** The event in words. `segments` are the names by number, where there are several. */
export function words(event, segments) {
  const name = segments.size > 1 ? segments.get(event.body.segment) : undefined;
  const kind = Object.hasOwn(KINDS, event.kind) ? KINDS[event.kind] : undefined;
  const said = kind ? kind(event.body, name ? ` of ${name}` : "") : plain(event);
  return event.by ? `${said} (by ${event.by})` : said;
}

function plain({ kind, body }) {
  const fields = Object.entries(body ?? {}).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return `${kind.replaceAll("_", " ")}${fields.length > 0 ? `: ${fields.join(", ")}` : ""}`.slice(0, 400);
}
