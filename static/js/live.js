// The overview's live side: one WebSocket, frames drawn as they come.
// Each frame is acknowledged after it is drawn; the server sends the next one only then. Whoever missed more frames
// than a frame repeats asks for the whole picture.
import { byId, element, keyed, say, seconds, write } from "./dom.js";
import { ask } from "./act.js";
import { drawAgents } from "./agents.js";
import { Charts } from "./charts.js";
import { drawNodes } from "./nodes.js";
import { followRange } from "./range.js";
import { refreshSuggestions } from "./suggestions.js";

const page = JSON.parse(byId("page").textContent);
const models = Object.keys(page.colours);
const RETRY_MS = [500, 1000, 2000, 5000];
const STALE_MS = 5000;
const NO_FRAME_MS = 3000;
const REPEATED = 8; // frames that may be missed without a gap in the timeline
const CLOSED_NOT_SIGNED_IN = 4401;
const CLOSED_NOT_ALLOWED = 4403;

let lastFrameAt = 0;
let lastNumber = 0;
let tries = 0;

function button(action, target, label) {
  const node = element("button", "small", label || page.actions[action].label);
  node.type = "button";
  node.addEventListener("click", () => ask(action, target));
  return node;
}

// --- slots -------------------------------------------------------------------------------------------

function makeSlot(slot) {
  const node = element("div", "slot", element("span", "number", String(slot.slot + 1)), element("a", "who"),
    element("span", "what quiet"), element("span", "act"));
  if (!slot.job_id) return node;
  node.style.borderLeftColor = page.colours[slot.model] || "";
  node.querySelector(".who").href = `/agents/${encodeURIComponent(slot.agent)}`;
  if (page.may.steer) node.querySelector(".act").append(button("cancel", slot.job_id));
  return node;
}

function updateSlot(node, slot) {
  write(node.querySelector(".who"), slot.job_id ? slot.agent : "free");
  if (!slot.job_id) return;
  const speed = slot.tokens_per_s ? `, ${slot.tokens_per_s} tokens/s` : "";
  write(node.querySelector(".what"), `${slot.model} · ${slot.phase} · ${slot.tokens} tokens${speed} · ${seconds(slot.age_s)}`);
}

// --- memory --------------------------------------------------------------------------------------------

const mb = (value) => Math.round(value).toLocaleString("en");

function drawMemory(vram) {
  const card = Math.max(vram.memory_mb, vram.usable_mb);
  const parts = [
    ...vram.residents.map(({ model, claim_mb, place }) => ({ key: model, wide: claim_mb, about: `${model} ${place}`, changing: place !== "loaded" })),
    { key: "free", wide: Math.max(0, vram.usable_mb - vram.used_mb), about: "free" },
    { key: "headroom", wide: card - vram.usable_mb, about: "headroom that no model may take" },
  ];
  keyed(byId("memory"), parts, (part) => part.key, makePart, (node, part) => {
    node.style.width = `${(100 * part.wide) / card}%`;
    node.title = `${part.about}: ${mb(part.wide)} MB`;
    node.classList.toggle("changing", Boolean(part.changing));
  });
  const free = Math.max(0, vram.usable_mb - vram.used_mb);
  write(byId("vram-sum"), `${mb(vram.used_mb)} of ${mb(vram.usable_mb)} MB usable, ${mb(free)} MB free; ${mb(card - vram.usable_mb)} MB of the card's ${mb(card)} are headroom`);
  const known = new Map(vram.residents.map((resident) => [resident.model, resident]));
  const prospects = new Map(vram.prospects.map((prospect) => [prospect.model, prospect]));
  const shown = [...new Set([...models, ...known.keys()])].map((model) => ({ model, resident: known.get(model), prospect: prospects.get(model) }));
  const state = ({ model, resident }) => `${model} ${resident ? resident.place : ""} ${resident ? resident.pinned : ""}`;
  keyed(byId("models"), shown, state, makeModel, (node, { resident, prospect }) => {
    write(node.querySelector(".what"), resident ? describe(resident) : foresee(prospect));
  });
}

function makePart(part) {
  const node = element("span", part.key in page.colours ? "" : part.key);
  if (part.key in page.colours) node.style.background = page.colours[part.key];
  return node;
}

function makeModel({ model, resident }) {
  const dot = element("span", "dot");
  dot.style.background = page.colours[model] || "#666";
  const acts = element("span", "act");
  if (page.may.steer && models.includes(model)) {
    if (!resident) acts.append(button("load", model));
    else if (resident.place === "loaded") {
      acts.append(button(resident.pinned ? "unpin" : "pin", model), button("unload", model));
    }
  }
  return element("li", "", dot, element("span", "about", element("span", "name", model), element("span", "what quiet")), acts);
}

function describe(resident) {
  const declared = resident.declared_mb ? `${mb(resident.declared_mb)} MB declared` : "";
  const measured = resident.footprint_mb ? `${mb(resident.footprint_mb)} MB measured` : "not measured yet";
  const spilt = resident.footprint_mb && resident.vram_mb < resident.footprint_mb ? `only ${mb(resident.vram_mb)} MB in VRAM` : "";
  return [resident.place, resident.pinned ? "pinned" : "", measured, spilt, declared].filter(Boolean).join(" · ");
}

// What it would take to bring a model in that is not there.
function foresee(prospect) {
  if (!prospect) return "not loaded";
  const size = `${mb(prospect.claim_mb)} MB ${prospect.measured ? "measured" : "declared"}`;
  if (!prospect.leaving) return `not loaded · ${size} · pinned models leave no room`;
  return `not loaded · ${size} · ${prospect.leaving.length ? `would push out ${prospect.leaving.join(" and ")}` : "fits beside what is loaded"}`;
}

// --- tables --------------------------------------------------------------------------------------------

function makeRow(classes) {
  return () => element("tr", "", ...classes.map((name) => element("td", name)));
}

function fill(row, texts) {
  texts.forEach((text, index) => write(row.children[index], text));
}

const QUEUE_LABELS = ["", "waiting", "running", "oldest", "new one in", "waited", ""]; // where the table's head has no room

function makeQueue() {
  const row = makeRow(["name", "n", "n", "n", "n", "n", "quiet"])();
  QUEUE_LABELS.forEach((label, index) => label && (row.children[index].dataset.label = label));
  return row;
}

function drawQueues(queues) {
  keyed(byId("queues"), queues, (queue) => queue.model, makeQueue, (row, queue) => fill(row, [
    queue.model, String(queue.waiting), String(queue.running), queue.waiting ? seconds(queue.oldest_age_s) : "–",
    seconds(queue.eta_s), seconds(queue.waited_s), queue.reason,
  ]));
}

const OUTCOMES = { replied: "good", rejected: "warn-text", cancelled: "quiet", failed: "bad" };

function makeRecent(record) {
  const row = makeRow(["", "", OUTCOMES[record.status], "", "n", "n", "n", "n", "n"])();
  const link = element("a", "", record.agent);
  link.href = `/requests/${encodeURIComponent(record.id)}`;
  row.children[0].append(link);
  return row;
}

function drawRecent(recent) {
  if (!recent.length) return;
  keyed(byId("recent"), recent, (record) => record.id, makeRecent, (row, record) => fill(row, [
    record.agent, record.model || "–", record.error ? `${record.status}: ${record.error}` : record.status, record.cache || "–",
    record.complexity === null ? "–" : record.complexity.toFixed(2), seconds(record.queue_s), seconds(record.total_s),
    String(record.output_tokens), `${seconds(Math.max(0, record.age_s))} ago`,
  ]));
}

// --- at a glance ----------------------------------------------------------------------------------------

function drawGlance(snapshot, sample) {
  const [ttft, speed, hits, swaps] = ["ttft", "speed", "hits", "swaps"].map((name) => sample[page.fields.indexOf(name)]);
  const { ended } = snapshot;
  write(byId("k-waiting"), String(snapshot.waiting));
  write(byId("k-ttft"), seconds(ttft));
  write(byId("k-speed"), speed === null ? "–" : String(Math.round(speed)));
  write(byId("k-hits"), hits === null ? "–" : `${Math.round(100 * hits)} %`);
  write(byId("k-swaps"), String(swaps));
  write(byId("k-bad"), String((ended.failed || 0) + (ended.rejected || 0)));
  byId("k-bad").classList.toggle("bad", Boolean(ended.failed));
}

// --- the whole picture ---------------------------------------------------------------------------------

let charts;
let chartsAsked = false;

function openCharts() {
  if (chartsAsked) return;
  chartsAsked = true;
  const script = element("script");
  script.src = byId("plotly").href;
  script.addEventListener("load", () => charts.open());
  document.head.append(script);
}

function draw(message) {
  const { snapshot } = message;
  say("notice", snapshot.unready || (snapshot.intake === "open" ? "" : `Intake is ${snapshot.intake}: new requests are refused.`));
  byId("simulated").hidden = !snapshot.simulated;
  write(byId("intake"), snapshot.intake);
  if (page.may.steer) {
    byId("intake-open").hidden = snapshot.intake !== "open";
    byId("intake-closed").hidden = snapshot.intake === "open";
  }
  keyed(byId("slots"), snapshot.slots, (slot) => `${slot.slot} ${slot.job_id}`, makeSlot, updateSlot);
  const { counters, ended } = snapshot;
  write(byId("totals"), `Since start: ${ended.replied || 0} replied, ${ended.rejected || 0} rejected, ${ended.failed || 0} failed, `
    + `${ended.cancelled || 0} cancelled · ${counters.swaps} swaps, ${counters.loads} loads`);
  drawMemory(snapshot.vram);
  say("swap", snapshot.swap);
  drawNodes(snapshot, page);
  drawQueues(snapshot.queues);
  drawRecent(snapshot.recent);
  drawAgents(snapshot.agents, snapshot.paused_agents);
  const sample = message.sample || message.samples[message.samples.length - 1];
  if (sample) drawGlance(snapshot, sample);
  charts.take(message);
  if (!document.hidden) charts.draw();
  if (message.kind === "first") showRange(); // with what was stored before this process, or this page, began
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/live`);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    // Models that came since the page was made need their own traces: a fresh page has them.
    if (message.snapshot.queues.some((queue) => !(queue.model in page.colours))) return void location.reload();
    tries = 0;
    const missed = message.kind === "frame" ? message.number - lastNumber - 1 : 0;
    lastNumber = message.number;
    lastFrameAt = Date.now();
    say("link", "");
    draw(message);
    socket.send(missed > REPEATED ? "whole" : "drawn");
    requestAnimationFrame(() => setTimeout(openCharts)); // once the picture is on the screen
  };
  socket.onclose = (event) => {
    if (event.code === CLOSED_NOT_SIGNED_IN) return void location.reload();
    if (event.code === CLOSED_NOT_ALLOWED) return void say("link", "Your account may not look at this any more.");
    say("link", "Connection lost: what you see is old. Trying again…");
    setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };
}

setInterval(() => {
  if (lastFrameAt && Date.now() - lastFrameAt > STALE_MS) {
    say("link", `No news for ${Math.round((Date.now() - lastFrameAt) / 1000)} s: what you see is old.`);
  }
}, 1000);

charts = new Charts(page.figures, models);
const showRange = followRange(charts);
refreshSuggestions();
connect();
setTimeout(openCharts, NO_FRAME_MS); // with no engine there, what is stored can be looked at all the same
