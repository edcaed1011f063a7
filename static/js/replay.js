// Follows a running replay: how far it is, and its result in the place of the progress once it has ended.
import { byId, write } from "./dom.js";
import { drawFigures } from "./figures.js";

const EVERY_MS = 400;
const RETRY_MS = 2000;
const running = byId("running");

async function look() {
  let state;
  try {
    const answer = await fetch(running.dataset.progress, { headers: { Accept: "application/json" } });
    if (answer.status === 404) return void write(byId("running-text"), "This replay is not kept any more.");
    if (!answer.ok) throw new Error(answer.statusText);
    state = await answer.json();
  } catch {
    write(byId("running-text"), "No connection. Trying again…");
    return void setTimeout(look, RETRY_MS);
  }
  if (state.state === "running") {
    const bar = byId("running-bar");
    if (state.total) {
      bar.max = state.total;
      bar.value = state.done;
    }
    write(byId("running-text"), state.said);
    return void setTimeout(look, EVERY_MS);
  }
  if (running.dataset.result) await show(running.dataset.result);
  else location.reload();
}

// On another page (thresholds) the result comes in the place of the progress, and what was typed stays.
async function show(address) {
  const answer = await fetch(address);
  const fragment = new DOMParser().parseFromString(await answer.text(), "text/html");
  byId("preview-result").replaceChildren(...fragment.body.childNodes);
  drawFigures();
}

if (running) look();
