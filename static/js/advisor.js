// While the advice is being worked out: how far it is, and the page again once new answers are there.
import { byId } from "./dom.js";

const EVERY_MS = 1000;
const STARTS_WITHIN_MS = 15000; // a process that was started a moment ago has not claimed its work yet
const first = JSON.parse(byId("advisor-state").textContent);
const asked = document.querySelector(".banner.success") !== null;
const opened = Date.now();
let wasBusy = first.busy;

async function look() {
  try {
    const answer = await fetch(byId("busy").dataset.url, { headers: { accept: "application/json" } });
    const state = await answer.json();
    wasBusy ||= state.busy;
    byId("busy").hidden = !state.busy;
    byId("far").value = state.done;
    if (state.ended !== first.ended || (wasBusy && !state.busy)) return location.reload();
  } catch {
    // the server is away for a moment: ask again
  }
  if (wasBusy || Date.now() - opened < STARTS_WITHIN_MS) setTimeout(look, EVERY_MS);
}

if (first.busy || asked) look();
