// Actions ask first, in a dialog. Without this script the server asks about live control on a page of its own.
import { byId } from "./dom.js";

const dialog = byId("confirm");
const form = dialog.querySelector("form");
const page = byId("page") ? JSON.parse(byId("page").textContent) : {};
let pending = null; // another form that waits for the answer

function open(label, question) {
  byId("confirm-title").textContent = label;
  byId("confirm-question").textContent = question;
  dialog.showModal();
}

// Ask about an action of live control; the dialog's own form carries it out.
export function ask(action, target) {
  const about = page.actions[action];
  pending = null;
  form.elements.action.value = action;
  form.elements.target.value = target;
  open(about.label, about.question.replaceAll("{target}", target));
}

byId("confirm-no").addEventListener("click", () => dialog.close());

document.addEventListener("submit", (event) => {
  if (event.target === form) {
    if (!pending) return;
    event.preventDefault();
    pending.submit();
  } else if (event.target.dataset.question) {
    event.preventDefault();
    pending = event.target;
    const confirmed = pending.elements.confirmed;
    if (confirmed) confirmed.value = "1";
    open(pending.querySelector("button").textContent, pending.dataset.question);
  }
});
