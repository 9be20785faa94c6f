// The page: asks the controller every second, and draws what has changed.

import { $, h, s, text } from "./dom.js";
import { Denied, ask, forget, forgetToken, hasToken, setToken } from "./api.js";
import { Model, PAIRS, STATES, count, lostEchoes, millis, seconds } from "./model.js";
import { Detail } from "./detail.js";
import { Graph } from "./graph.js";
import { List } from "./list.js";
import { Matrix } from "./matrix.js";
import { icon } from "./glyphs.js";
import { words } from "./words.js";

const EVERY = 1000;         // milliseconds between two questions
const HISTORIES = 5000;     // between two of scores and events
const UNWELL = 60;          // unwell pairs in the list

let model, answer, answeredAt = 0, selected, historiesAt = 0, wasNews = new Map(), isBusy = false;
/** Seconds since 1970 by the controller's clock: its ages and countdowns are not the browser's affair. */
let offset = 0;
const now = () => Date.now() / 1000 + offset;
const ageOf = (utc) => now() - Date.parse(utc) / 1000;

const detail = new Detail(now);
const pick = (name) => { selected = name; draw(); detail.open(name, model, segments()); };
const graph = new Graph(pick), matrix = new Matrix(pick, ageOf), list = new List(pick, () => { draw(); histories(true); });
const segments = () => new Map(Object.entries(model.status.segments).map(([name, it]) => [it.id, name]));

async function look() {
  if (isBusy) return;
  isBusy = true;
  try {
    const fresh = await ask("v1/mesh", { once: true });
    answeredAt = performance.now();
    $("lost").hidden = true;
    $("entry").hidden = true;
    $("main").hidden = false;
    if (fresh) {
      const start = performance.now();
      answer = fresh;
      // Nothing is older than the newest status, and that one is of a moment ago.
      const ahead = Date.parse(fresh.status.generated_utc) / 1000 - Date.now() / 1000;
      offset = model ? Math.max(offset, ahead) : ahead;
      remodel();
      measured(start);
    }
    await histories(false);
  } catch (error) {
    if (error instanceof Denied) denied(error);
    else lost(error);
  } finally {
    isBusy = false;
  }
}

function remodel() {
  model = new Model(answer, $("segment").value || undefined);
  draw();
  tell();
}

/** How long a redraw took, the frame included: for whoever measures. */
function measured(start) {
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      if (performance.getEntriesByName("redraw").length > 500) performance.clearMeasures("redraw");
      performance.measure("redraw", { start, end: performance.now() });
    };
    port2.postMessage(null);
  });
}

function draw() {
  if (!model) return;
  const { status } = model;
  text($("mesh-name"), `${status.mesh.slice(0, 21)}… by meshd ${status.version}`);
  const alarms = model.alarms(), isWell = alarms.length === 0;
  $("verdict").className = `verdict ${isWell ? "well" : "unwell"}`;
  // What `meshctl status` says first: a node that the policy keeps out is no fault of the mesh.
  text($("verdict"), isWell ? `✓ Well: ${model.membersInWords()}` : `! ${count(alarms.length, "thing needs", "things need")} attention`);
  $("attention").hidden = alarms.length === 0;
  const said = [...$("alarms").children].map((it) => it.textContent);
  if (said.join("\n") !== alarms.join("\n")) $("alarms").replaceChildren(...alarms.map((it) => h("li", {}, it)));
  text($("epoch-number"), `Epoch ${model.epoch.id}`);
  text($("epoch-members"), count(model.epoch.members, "member", "members"));
  if ($("segment").options.length !== model.segments.length) {
    $("segment").replaceChildren(...model.segments.map((it) => h("option", {}, it)));
    $("segment").value = model.segmentName;
    $("segment-label").hidden = model.segments.length < 2;
  }
  text($("map-summary"), graph.summary(model));
  if ($("graph-box").hidden) matrix.draw(model);
  else graph.draw(model, selected);
  list.draw(model, now() * 1000);
  unwellPairs();
  tick();
}

function unwellPairs() {
  const bad = model.pairs.links.filter((it) => "ldf".includes(it.is));
  text($("unwell-title"), `Pairs that are not well: ${model.pairs.unwell}${model.pairs.unwell > UNWELL ? `, the first ${UNWELL}` : ""}`);
  $("unwell-box").hidden = model.pairs.unwell === 0;
  if (!$("unwell-box").open) return;
  $("unwell").replaceChildren(...bad.slice(0, UNWELL).map((it) => h("tr", {},
    h("td", {}, model.all[it.from]), h("td", {}, model.all[it.to]), h("td", {}, it.faults?.length ? it.faults.join("; ") : PAIRS[it.is]),
    h("td", { class: "number" }, it.session_epoch === null ? "none" : `epoch ${it.session_epoch}`), h("td", { class: "number" }, Number.isFinite(it.tunnel?.handshake_seconds) ? `${seconds(it.tunnel.handshake_seconds)} ago` : "–"), h("td", { class: "number" }, lostEchoes(it)),
    h("td", { class: "number" }, millis(it.rtt_v4_ms ?? it.rtt_v6_ms)), h("td", { class: "number" }, `${seconds(ageOf(it.at_utc))} ago`))));
}

/** Tells a screen reader who came, went, joined or was cut off. */
function tell() {
  const is = new Map(model.nodes.map((it) => [it.name, `${STATES[it.state] ?? it.state}, ${it.member ? "a member" : "no member"}`]));
  if (wasNews.size > 0) {
    const news = [...is].filter(([name, state]) => wasNews.get(name) !== state).map(([name, state]) => `${name}: ${state}`);
    news.push(...[...wasNews.keys()].filter((name) => !is.has(name)).map((name) => `${name}: gone`));
    if (news.length > 0) $("news").textContent = news.slice(0, 5).join(". ") + (news.length > 5 ? ` and ${news.length - 5} more` : "");
  }
  wasNews = is;
}

/** The scores of the nodes that are shown, and the events. */
async function histories(atOnce) {
  if (!model || (!atOnce && performance.now() < historiesAt)) return;
  historiesAt = performance.now() + HISTORIES;
  const names = list.chosen(model).slice(list.page * 25, list.page * 25 + 25).map((it) => it.name);
  try {
    const [scores, events] = await Promise.all([
      ask(`v1/history?segment=${encodeURIComponent(model.segmentName)}&points=60&${names.map((it) => `node=${encodeURIComponent(it)}`).join("&")}`),
      ask("v1/events?limit=50"),
    ]);
    list.histories = scores;
    list.rows.forEach((it) => { it.key = ""; });
    list.draw(model, now() * 1000);
    const rows = events.events.reverse().map((it) => [it, words(it, segments())]);
    const key = rows.map(([it]) => it.seq).join();
    if ($("event-list").dataset.key !== key) {
      $("event-list").dataset.key = key;
      $("event-list").replaceChildren(...rows.map(([it, said]) => h("li", { value: it.seq }, h("time", { datetime: it.at_utc }, it.at_utc.slice(0, 19).replace("T", " ")), said)));
    }
  } catch (error) {
    if (error instanceof Denied) denied(error);
    else lost(error);
  }
}

/** What passes by itself: countdown and ages. */
function tick() {
  if (!model) return;
  const { epoch } = model, ends = Date.parse(epoch.expiry_utc) / 1000, began = Date.parse(epoch.activated_utc) / 1000, left = ends - now();
  $("epoch-progress").value = Math.min(1, Math.max(0, 1 - left / Math.max(1, ends - began)));
  text($("epoch-countdown"), left >= 0 ? `ends in ${seconds(left)}${epoch.next ? `; epoch ${epoch.next.id} is on its way` : ""}` : `overdue for ${seconds(-left)}`);
  const age = ageOf(model.status.generated_utc);
  text($("age"), `Status of ${seconds(age)} ago.`);
  const silent = (performance.now() - answeredAt) / 1000;
  if (silent > 6 && !document.hidden) lost(new Error(`no answer for ${seconds(silent)}`));
}

function lost(error) {
  $("lost").hidden = false;
  text($("lost"), model ? `The controller does not answer (${error.message}): what is shown is of ${model.status.generated_utc}.` : `The controller does not answer: ${error.message}.`);
  $("verdict").className = "verdict unwell";
  text($("verdict"), "! The controller does not answer");
}

function denied(error) {
  $("main").hidden = true;
  $("lost").hidden = true;
  if (hasToken()) text($("login-error"), `The token was refused: ${error.message}.`);
  forgetToken();
  forget();
  model = undefined;
  text($("verdict"), "A token is needed");
  if ($("entry").hidden) {
    $("entry").hidden = false;
    $("token").focus();
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  $("token").value = "";
  text($("login-error"), "");
  look();
});

$("segment").addEventListener("change", () => { wasNews = new Map(); remodel(); histories(true); });

for (const view of ["graph", "matrix"]) {
  $(`show-${view}`).addEventListener("click", () => {
    for (const it of ["graph", "matrix"]) {
      $(`${it}-box`).hidden = it !== view;
      $(`show-${it}`).setAttribute("aria-pressed", String(it === view));
    }
    draw();
  });
}
$("unwell-box").addEventListener("toggle", () => model && unwellPairs());

/* The scheme: the system's, unless the switch says otherwise. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["system", "light", "dark"];
let theme = THEMES.includes(localStorage.getItem("meshd-theme")) ? localStorage.getItem("meshd-theme") : "system";
function paint() {
  document.documentElement.dataset.theme = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
  $("theme").textContent = `Theme: ${theme}`;
  draw();
}
$("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("meshd-theme", theme);
  paint();
});
dark.addEventListener("change", paint);

function legend() {
  const line = (letter) => h("span", {}, s("svg", { width: 30, height: 8, viewBox: "0 0 30 8", "aria-hidden": "true" }, s("path", { class: `link ${letter}`, d: "M1 4H29" })), PAIRS[letter === "u" ? "?" : letter]);
  $("legend").append(...Object.entries(STATES).map(([state, name]) => h("span", { class: state }, icon(state), name)), ...["w", "u", "l", "d", "f"].map(line));
}

legend();
paint();
look();
setInterval(() => { if (!document.hidden) look(); }, EVERY);
setInterval(tick, 500);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { answeredAt = performance.now(); look(); } });
