// The heat grid: every agent as a cell, by tier, coloured by one of three figures; each tier with its sums.
import { byId, seconds, write } from "./dom.js";

const cells = new Map([...document.querySelectorAll(".heat .cell")].map((cell) => [cell.dataset.agent, cell]));
const NOTHING = [0, 0, 0, 0, 0]; // waiting, running, requests, bad, seconds on the slots
const HOT = 0.55; // from here on the letters are light
const BY = {
  share: { about: "The darker, the larger the share of GPU time in the last 15 minutes.", of: (figures) => figures[4] },
  load: { about: "The darker, the more requests wait or run now.", of: (figures) => figures[0] + figures[1] },
  errors: { about: "The darker, the larger the part of its requests that failed or were refused in the last 15 minutes.", of: (figures) => (figures[2] ? figures[3] / figures[2] : 0) },
};

let by = BY.share;
let last = null;

export function drawAgents(agents, paused) {
  last = [agents, paused];
  const most = Math.max(0.001, ...[...cells.keys()].map((slug) => by.of(agents[slug] || NOTHING)));
  const allBusy = Object.values(agents).reduce((sum, figures) => sum + figures[4], 0);
  const still = new Set(paused);
  const sums = new Map();
  for (const [slug, cell] of cells) {
    const figures = agents[slug] || NOTHING;
    drawCell(cell, slug, figures, by.of(figures) / most, still.has(slug));
    const tier = cell.closest(".heat").dataset.tier;
    const sum = sums.get(tier) || [0, ...NOTHING];
    sums.set(tier, [sum[0] + 1, ...figures.map((value, index) => sum[index + 1] + value)]);
  }
  for (const [tier, [count, waiting, running, requests, bad, busy]] of sums) {
    const share = allBusy ? `${Math.round((100 * busy) / allBusy)} % of GPU time` : "";
    const parts = [`${count} agents`, `${waiting} waiting`, `${running} running`, `${requests} requests`, share, bad ? `${bad} failed` : ""];
    write(document.querySelector(`[data-tier-sum="${tier}"]`), parts.filter(Boolean).join(" · "));
  }
}

function drawCell(cell, slug, figures, heat, paused) {
  const [waiting, running, requests, bad, busy] = figures;
  cell.style.setProperty("--heat", heat.toFixed(2));
  cell.classList.toggle("hot", heat > HOT);
  cell.classList.toggle("busy", running > 0);
  cell.classList.toggle("failing", bad > 0);
  cell.classList.toggle("stopped", paused);
  write(cell, waiting ? String(waiting) : running ? "▸" : paused ? "–" : bad ? "!" : "");
  const text = `${slug}: ${requests} requests, ${bad} failed, ${seconds(busy)} on the slots; ${waiting} waiting, ${running} running${paused ? "; paused" : ""}`;
  if (cell.title !== text) {
    cell.title = text;
    cell.setAttribute("aria-label", text);
  }
}

byId("heat-by").addEventListener("change", (event) => {
  by = BY[event.target.value];
  write(byId("heat-about"), by.about);
  if (last) drawAgents(...last);
});
