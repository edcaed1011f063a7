// Draws the page's figures (json_script "figures": name -> Plotly figure) into #chart-NAME, in the theme's colours.
import { byId } from "./dom.js";

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
  return { ...layout, font: { color: ink }, xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis } };
}

export function drawFigures() {
  const source = byId("figures");
  if (!source) return;
  for (const [name, figure] of Object.entries(JSON.parse(source.textContent))) {
    const node = byId(`chart-${name}`);
    if (node) Plotly.react(node, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false });
  }
}

drawFigures();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigures);
