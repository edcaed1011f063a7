// Keeps the card of suggestions fresh: the server renders it, once a minute, unless somebody is about to decide.
import { byId } from "./dom.js";

const AGAIN_MS = 60_000; // the rules look once a minute

export function refreshSuggestions() {
  const card = byId("suggestions");
  setInterval(async () => {
    if (document.hidden || card.contains(document.activeElement) || byId("confirm").open) return;
    try {
      const answer = await fetch("/suggestions");
      if (answer.ok && !answer.redirected) card.innerHTML = await answer.text();
    } catch {
      // the live channel says that the connection is lost
    }
  }, AGAIN_MS);
}
