// The range of the charts: the last quarter of an hour is live, longer ones are read from the stored history.
import { byId, say } from "./dom.js";

const LIVE = "15m";
const AGAIN_MS = 60_000; // a stored minute is the finest step there is

export function followRange(charts) {
  const form = byId("range");
  let latest = 0;

  async function show() {
    const wanted = form.elements.range.value;
    const number = ++latest; // an answer to an earlier question is not drawn
    try {
      const answer = await fetch(`/series?range=${wanted}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.statusText);
      const data = await answer.json();
      if (number !== latest) return;
      charts.showPast(data, wanted === LIVE);
      say("range-problem", "");
    } catch {
      if (number === latest) say("range-problem", "The history cannot be read now. Trying again in a minute.");
    }
  }

  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  setInterval(() => {
    if (!document.hidden && form.elements.range.value !== LIVE) show();
  }, AGAIN_MS);
  return show;
}
