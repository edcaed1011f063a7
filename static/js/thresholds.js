// Says beside a field what is wrong with it while it is typed, and how many fields were moved. The server decides.
import { byId } from "./dom.js";

const form = byId("thresholds");
const fields = [...form.querySelectorAll(".setting input, .setting select")];
const before = new Map(fields.map((field) => [field, field.value]));

function problemOf(field) {
  if (field.dataset.low === undefined) return "";
  const text = field.value.trim();
  const number = Number(text);
  if (!text || Number.isNaN(number)) return "must be a number";
  const [low, high] = [Number(field.dataset.low), Number(field.dataset.high)];
  if (number < low || number > high) return `must be from ${field.dataset.low} to ${field.dataset.high}`;
  return field.dataset.step === "1" && !Number.isInteger(number) ? "must be a whole number" : "";
}

form.addEventListener("input", (event) => {
  const field = event.target;
  const note = byId(`p-${field.name}`);
  if (note && field.name !== "reason") {
    const problem = problemOf(field);
    note.textContent = problem;
    note.hidden = !problem;
    field.toggleAttribute("aria-invalid", Boolean(problem));
    field.closest(".setting").classList.toggle("wrong", Boolean(problem));
  }
  const moved = fields.filter((other) => other.value !== before.get(other)).length;
  if (byId("moved")) byId("moved").textContent = moved ? `${moved} moved` : "";
});

if (byId("problems")) byId("problems").focus();
