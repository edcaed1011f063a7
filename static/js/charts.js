// The charts: figures come from the page, data from the frames, or over a longer range from the stored history.
// What is live is bounded, so an open tab does not grow. The timeline always shows the last quarter of an hour.
import { byId, seconds } from "./dom.js";

const HISTORY_S = 900;
const BARS_KEPT = 600;
const NARROW_PX = 700;
const AT = 0; // where a sample has its time
const USES = ["prefill", "decode", "load"];

export class Charts {
  constructor(figures, models) {
    this.models = models;
    this.samples = []; // live, at most a quarter of an hour
    this.before = []; // of the stored quarter of an hour, what is older than the live ones (after a restart)
    this.past = null; // {samples, since, until} of a longer range that was chosen
    this.bars = new Map(); // number -> [.., start, end] in seconds since the epoch
    this.places = Object.entries(figures).map(([name, figure]) => ({ name, figure, node: byId(`chart-${name}`) }));
    this.opened = false; // Plotly takes half a second to read: it comes after the first frame is drawn
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.draw();
      this.drawPast();
    });
  }

  open() {
    for (const { figure, node } of this.places) {
      Plotly.newPlot(node, figure.data, this.themed(figure.layout), { responsive: true, displayModeBar: false });
    }
    this.opened = true;
    this.draw();
    this.drawPast();
  }

  themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
    const xaxis = { ...layout.xaxis, ...axis, ...(innerWidth < NARROW_PX ? { nticks: 5 } : {}) };
    return { ...layout, font: { color: ink, family: "system-ui, sans-serif" }, xaxis, yaxis: { ...layout.yaxis, ...axis } };
  }

  take(message) {
    const at = message.snapshot.at;
    if (message.kind === "first") {
      this.samples = message.samples;
      this.bars.clear();
    } else if (!this.samples.length || message.sample[AT] > this.samples[this.samples.length - 1][AT]) {
      this.samples.push(message.sample);
    }
    const oldest = this.samples.findIndex((sample) => sample[AT] > at - HISTORY_S);
    if (oldest > 0) this.samples.splice(0, oldest);
    if (this.before.length && this.before[0][AT] < at - HISTORY_S) this.before.shift();
    for (const [number, kind, model, slot, start, end, runs, agent, failed] of message.bars) {
      this.bars.set(number, { kind, model, slot, start: at + start, end: end === null ? null : at + end, runs, agent, failed });
    }
    for (const [number, bar] of this.bars) {
      if (this.bars.size > BARS_KEPT || (bar.end !== null && bar.end < at - HISTORY_S)) this.bars.delete(number);
    }
    this.rows = [...message.snapshot.slots.map((slot) => `slot ${slot.slot + 1}`), "memory"];
    this.running = message.snapshot.slots.filter((slot) => slot.job_id);
    this.at = at;
  }

  // Stored points of a range; those of the quarter of an hour only go before what is live.
  showPast(answer, live) {
    const samples = answer.points.map((point) => this.sampleOf(point, answer.step_s));
    if (live) {
      const first = this.samples.length ? this.samples[0][AT] : answer.until;
      this.before = samples.filter((sample) => sample[AT] + answer.step_s <= first && sample[AT] > answer.since);
    }
    this.past = live ? null : { samples, since: answer.since, until: answer.until };
    this.drawPast();
  }

  sampleOf(point, stepS) {
    const ofModels = (values) => this.models.map((model) => values[model] ?? null);
    return [
      point.at, ofModels(point.waiting), ofModels(point.response_p50_s), ofModels(point.response_p95_s), point.ttft_p50_s,
      point.tokens_per_s, point.hit_rate, (point.swaps * 60) / stepS, USES.map((use) => point.gpu_share[use] ?? 0),
    ];
  }

  draw() {
    if (!this.opened || this.at === undefined) return;
    this.drawTimeline();
    if (!this.past) this.drawAll([...this.before, ...this.samples], this.at - HISTORY_S, this.at);
  }

  drawPast() {
    if (!this.opened) return;
    if (this.past) this.drawAll(this.past.samples, this.past.since, this.past.until);
    else this.draw();
  }

  drawAll(samples, since, until) {
    const times = samples.map((sample) => new Date(sample[AT] * 1000));
    for (const { name, figure, node } of this.places) {
      if (name === "timeline") continue;
      for (const trace of figure.data) {
        const [field, index] = trace.meta;
        trace.x = times;
        trace.y = samples.map((sample) => (index === undefined ? sample[field] : sample[field][index]) ?? null);
      }
      this.show(node, figure, since, until);
    }
  }

  show(node, figure, since, until, yaxis) {
    const layout = this.themed(figure.layout);
    layout.xaxis = { ...layout.xaxis, range: [new Date(since * 1000), new Date(until * 1000)] };
    layout.yaxis = { ...layout.yaxis, ...yaxis };
    Plotly.react(node, figure.data, layout);
  }

  drawTimeline() {
    const { figure, node } = this.places.find((place) => place.name === "timeline");
    const traces = figure.data;
    for (const trace of traces) Object.assign(trace, { x: [], y: [], base: [], hovertext: [], hoverinfo: "text" });
    const special = { load: 0, evict: 1, lost: 2 };
    const add = (bar) => {
      const index = bar.kind === "run" ? this.models.indexOf(bar.model) : this.models.length + special[bar.kind];
      const trace = traces[index];
      if (!trace) return;
      const length = (bar.end ?? this.at) - bar.start;
      trace.base.push(new Date(bar.start * 1000));
      trace.x.push(Math.max(1500, length * 1000)); // narrower could not be seen: a pixel is about a second
      trace.y.push(bar.kind === "run" ? `slot ${bar.slot + 1}` : "memory");
      const who = bar.runs > 1 ? `${bar.runs} requests` : bar.agent;
      trace.hovertext.push([bar.kind, bar.model, who, seconds(length), bar.failed ? "failed" : ""].filter(Boolean).join(" · "));
    };
    for (const bar of this.bars.values()) add(bar);
    for (const slot of this.running) {
      add({ kind: "run", model: slot.model, slot: slot.slot, start: this.at - slot.age_s, end: null, runs: 1, agent: slot.agent });
    }
    const yaxis = { categoryorder: "array", categoryarray: this.rows };
    this.show(node, figure, this.at - HISTORY_S, this.at, yaxis);
  }
}
