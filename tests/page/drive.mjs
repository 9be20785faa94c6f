// Drives the page in a real browser: node drive.mjs STORY, with the story's settings as JSON on standard input.
//
// Lines of JSON on standard output say how far it is ({"say": …}); a line on standard input lets it go on. The exit
// code is 1 at the first thing that is not as it should be, with the reason on standard error.

import { createInterface } from "node:readline";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire } from "node:module";

const require = createRequire(join(process.env.PAGE_TESTS_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => { const { value, done } = await lines.next(); return done ? undefined : value; };
const say = (words) => process.stdout.write(`${JSON.stringify(words)}\n`);
const settings = JSON.parse(await next());

class Wrong extends Error {}
function is(condition, words) { if (!condition) throw new Wrong(words); }
function same(got, wanted, words) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  is(a === b, `${words}: ${a}, and not ${b}`);
}

const profile = mkdtempSync(join(tmpdir(), "meshd-page-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: settings.chromium,
  headless: true,
  viewport: { width: 1280, height: 900 },
  colorScheme: "light",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
});
const page = browser.pages()[0] ?? await browser.newPage();
const faults = [];
page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`); });
page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
page.on("request", (request) => {
  const url = request.url();
  if (request.method() !== "GET") faults.push(`${request.method()} ${url}`);
  if (!url.startsWith(settings.url) && !url.startsWith("data:")) faults.push(`asked ${url}`);
});
page.setDefaultTimeout(60000);

/** What the table of nodes says: state and whether it is a member, by name. */
const shown = () => page.evaluate(() => Object.fromEntries([...document.querySelectorAll("#node-rows tr")].map((row) => [
  row.querySelector(".name").textContent, row.querySelector(".state").textContent])));

async function accessible(where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const words = violations.map((it) => `${it.id} (${it.impact}): ${it.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`);
  is(words.length === 0, `not accessible, ${where}: ${words.join("; ")}`);
}

async function fits(where) {
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  is(wide <= has, `${where}: the page is ${wide} pixels wide, and the screen ${has}`);
}

async function picture(name) {
  if (!settings.pictures) return;
  await page.screenshot({ path: join(settings.pictures, `${name}.png`) });
}

const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

const stories = {
  /** A real controller with real nodes, one of which is cut off while the page is open. */
  async mesh() {
    await page.goto(settings.url);
    await page.waitForFunction((names) => names.every((name) => [...document.querySelectorAll("#node-rows .name")].some((it) => it.textContent === name)), settings.nodes);
    await page.waitForFunction(() => document.querySelectorAll("#node-rows .state.ACTIVE").length === 3);
    const answer = await page.evaluate(async () => (await fetch("v1/mesh")).json());
    same(Object.keys(await shown()).sort(), Object.keys(answer.status.nodes).sort(), "the nodes");
    await page.waitForFunction(() => document.querySelectorAll("#graph .link.w").length === 3);
    is(/Epoch \d+/.test(await page.textContent("#epoch-number")), "the epoch has its number");
    await page.waitForFunction(() => /ends in \d+ s/.test(document.getElementById("epoch-countdown").textContent));
    await page.waitForFunction(() => [...document.querySelectorAll("#node-rows tr")].every((row) => row.querySelector(".spark .score")?.getAttribute("d")));
    await page.waitForFunction(() => document.querySelectorAll("#event-list li").length > 5);
    await accessible("light");
    await picture("light");
    // By keyboard alone: to a node's button, and into its explanation.
    await page.focus("#search");
    await page.keyboard.type("node-b");
    await page.waitForFunction(() => document.querySelectorAll("#node-rows tr").length === 1);
    for (let i = 0; i < 8 && await page.evaluate(() => document.activeElement.textContent !== "node-b"); i += 1) await page.keyboard.press("Tab");
    same(await page.evaluate(() => document.activeElement.textContent), "node-b", "Tab leads to the node");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#detail[open] dl");
    is((await page.textContent("#detail-body")).includes("a member"), "the explanation says that it is a member");
    is(/handshake \d+ s ago, \d+ of \d+ echoes lost/.test(await page.textContent("#detail-body")), "the explanation says how good its tunnels are");
    is(await page.evaluate(() => document.getElementById("detail").contains(document.activeElement)), "the focus is in the explanation");
    is((await page.locator("#detail .uplot canvas").count()) > 0, "the explanation has a chart");
    await accessible("an explanation");
    await picture("explain");
    await page.keyboard.press("Escape");
    same(await page.evaluate(() => document.activeElement.textContent), "node-b", "the focus is back");
    await page.fill("#search", "");
    await page.waitForFunction((n) => document.querySelectorAll("#node-rows tr").length === n, settings.nodes.length);
    await page.click("#show-matrix");
    await page.focus("#matrix");
    await page.keyboard.press("ArrowDown");
    is(/node-\w(: | → )/.test(await page.textContent("#matrix-cell")), "the matrix tells its cell");
    await accessible("the matrix");
    await page.click("#show-graph");

    say({ say: "well" });
    await next();
    // Node-c's score is bad from now on, and nobody reloads the page.
    await page.waitForFunction((name) => [...document.querySelectorAll("#node-rows tr")].some((row) => row.querySelector(".name").textContent === name && row.querySelector(".state.QUARANTINED") && row.textContent.includes("no member")), settings.cut);
    await page.waitForFunction((name) => document.getElementById("news").textContent.includes(name), settings.cut);
    await page.waitForFunction(() => document.querySelectorAll("#graph .node.QUARANTINED rect").length > 0 && document.querySelectorAll("#graph .link").length === 1);
    await page.waitForFunction(() => document.querySelectorAll("#node-rows .spark .out").length > 0);
    await page.waitForFunction(() => document.getElementById("verdict").textContent === "✓ Well: 2 of 3 nodes are members");
    await picture("cut-off");
    await page.setViewportSize({ width: 360, height: 740 });
    await fits("360 pixels");
    await accessible("a phone");
    await picture("phone");
    await page.setViewportSize({ width: 1280, height: 900 });
    const light = await background();
    await page.emulateMedia({ colorScheme: "dark" });
    await page.waitForFunction((before) => getComputedStyle(document.body).backgroundColor !== before, light);
    await accessible("dark");
    await picture("dark");
    await page.click("#theme");
    await page.waitForFunction((before) => getComputedStyle(document.body).backgroundColor === before, light);

    say({ say: "cut off" });
    await next();
    // The controller is gone.
    await page.waitForFunction(() => !document.getElementById("lost").hidden && document.getElementById("verdict").textContent.includes("does not answer"));
    faults.splice(0, faults.length, ...faults.filter((it) => !it.includes("net::ERR_")));
  },

  /** A large mesh from fixed words, a token before it, and names that would be markup. */
  async large() {
    await page.goto(settings.url);
    await page.waitForSelector("#login:not([hidden])");
    await accessible("the form");
    await page.fill("#token", "not-the-token-but-as-long-as-one");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("login-error").textContent.includes("refused"));
    await page.fill("#token", settings.token);
    await page.keyboard.press("Enter");
    await page.waitForFunction((n) => document.getElementById("nodes-count").textContent === `${n} nodes`, settings.count);
    await page.waitForFunction((n) => document.querySelectorAll("#graph .node").length === n, settings.count);
    is(await page.evaluate(() => document.getElementById("node-rows").children.length === 25), "a page of the table has 25 nodes");
    is(await page.evaluate(() => document.querySelectorAll("#graph .link.w").length === 0 && document.querySelectorAll("#graph .link").length > 0), "only unwell pairs are drawn");
    for (const word of settings.hostile) is((await page.textContent("#main")).includes(word), `${word} is shown as text`);
    is(await page.evaluate(() => document.querySelectorAll("img, iframe, script:not([src])").length === 0 && window.hostile === undefined), "nothing of a name became markup");
    await accessible("large");
    await picture("large-light");
    const median = async (name) => {
      await page.evaluate(() => performance.clearMeasures("redraw"));
      await page.waitForFunction((n) => performance.getEntriesByName("redraw").length >= n, settings.redraws);
      const times = (await page.evaluate(() => performance.getEntriesByName("redraw").map((it) => it.duration))).sort((a, b) => a - b);
      const figure = { redraw: name, nodes: settings.count, times: times.length, median: times[times.length >> 1], least: times[0], most: times.at(-1) };
      say(figure);
      return figure.median;
    };
    const graph = await median("graph");
    await page.click("#show-matrix");
    const matrix = await median("matrix");
    await picture("large-matrix");
    await page.setViewportSize({ width: 360, height: 740 });
    await fits("360 pixels");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.click("#show-graph");
    await picture("large-dark");
    await accessible("large, dark");
    if (settings.limit) is(graph <= settings.limit && matrix <= settings.limit, `a redraw takes ${graph} and ${matrix} ms, and not ${settings.limit} at most`);
    faults.splice(0, faults.length, ...faults.filter((it) => !it.includes("401")));
  },
};

let code = 0;
try {
  await stories[process.argv[2]]();
  is(faults.length === 0, faults.slice(0, 5).join("; "));
  say({ say: "done" });
} catch (error) {
  process.stderr.write(`${error instanceof Wrong ? error.message : error.stack}\n`);
  if (faults.length > 0) process.stderr.write(`before that: ${faults.slice(0, 5).join("; ")}\n`);
  process.stderr.write(`the page said: ${(await page.evaluate(() => document.body.innerText).catch(() => "")).slice(0, 1500)}\n`);
  code = 1;
}
await browser.close().catch(() => {});
rmSync(profile, { recursive: true, force: true });
process.exit(code);
