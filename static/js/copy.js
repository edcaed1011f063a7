// Buttons that copy the text of another element.
import { byId } from "./dom.js";

document.addEventListener("click", async (event) => {
  const source = event.target.dataset ? event.target.dataset.copy : undefined;
  if (!source) return;
  try {
    await navigator.clipboard.writeText(byId(source).textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(byId(source));
    byId("copied").textContent = "Selected: press Ctrl+C.";
  }
});
