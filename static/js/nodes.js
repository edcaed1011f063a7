// The overview's nodes, where there are several: each one's state, slots and memory, and its drain for maintenance.
import { byId, element, keyed, write } from "./dom.js";
import { ask } from "./act.js";

const STATES = { ready: "good", lost: "bad", draining: "warn-text", drained: "warn-text" };

function makeNode(page) {
  return (node) => {
    const acts = element("span", "act");
    const action = node.state === "draining" || node.state === "drained" ? "resume-node" : "drain-node";
    if (page.may.steer) {
      const button = element("button", "small", page.actions[action].label);
      button.type = "button";
      button.addEventListener("click", () => ask(action, node.name));
      acts.append(button);
    }
    const memory = element("div", "memory");
    memory.setAttribute("role", "img");
    const head = element("div", "row", element("strong", "name", node.name), element("span", STATES[node.state], node.state), acts);
    return element("li", "", head, memory, element("p", "what quiet"), element("ul", "plain runs"));
  };
}

function describe(node) {
  const { vram } = node;
  const loaded = vram.residents.map((resident) => (resident.place === "loaded" ? resident.model : `${resident.model} ${resident.place}`));
  const parts = [`${Math.round(vram.used_mb)} of ${Math.round(vram.usable_mb)} MB`, loaded.join(", ") || "no model loaded", `${node.waiting} waiting`];
  return [...parts, node.swap, node.reason].filter(Boolean).join(" · ");
}

function drawMemory(place, vram, colours) {
  keyed(place, vram.residents, (resident) => resident.model, () => element("span", ""), (part, resident) => {
    part.style.background = colours[resident.model] || "#666";
    part.style.width = `${(100 * resident.claim_mb) / vram.usable_mb}%`;
    part.className = resident.place === "loaded" ? "" : "changing";
  });
}

export function drawNodes(snapshot, page) {
  const nodes = snapshot.nodes || [];
  byId("nodes-card").hidden = nodes.length < 2;
  if (nodes.length < 2) return;
  const slots = new Map(snapshot.slots.map((slot) => [slot.slot, slot]));
  keyed(byId("nodes"), nodes, (node) => `${node.name} ${node.state}`, makeNode(page), (item, node) => {
    drawMemory(item.querySelector(".memory"), node.vram, page.colours);
    item.querySelector(".memory").setAttribute("aria-label", `Memory of ${node.name}`);
    write(item.querySelector(".what"), describe(node));
    keyed(item.querySelector(".runs"), node.slots, String, () => element("li", ""), (line, number) => {
      const slot = slots.get(number) || {};
      write(line, slot.job_id ? `slot ${number + 1}: ${slot.agent} · ${slot.model} · ${slot.phase}` : `slot ${number + 1}: free`);
    });
  });
}
