"""Style and script of the report's page; both are put inside it."""

from __future__ import annotations

#: The browser itself is told to load nothing, so that a page from elsewhere cannot call home.
POLICY_OF_PAGE = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:\">"
)

#: Beside the style that all our pages share.
STYLES = """
main { max-width: 1120px; } h1 { margin-bottom: 2px; overflow-wrap: anywhere; }
h1 + .facts { margin-bottom: 18px; } section { overflow-wrap: anywhere; }
.verdict { font-size: 21px; line-height: 1.3; margin-bottom: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; }
.tile { border: 1px solid #dfe4ea; border-radius: 8px; padding: 12px 16px; display: flex; flex-direction: column; }
.tile.ours { border: 2px solid #0072b2; background: #f0f7fc; }
.tile .under, .tile .none { color: #57636f; font-size: 13px; min-height: 1.5em; }
.tile .big { font-size: 32px; font-weight: 650; line-height: 1.35; font-variant-numeric: tabular-nums; }
.tile small { font-size: 14px; font-weight: 400; color: #57636f; }
.yes { color: #00704f; } .no { color: #b04a00; } .notes { color: #6b4a00; padding-left: 20px; margin: 10px 0 0; }
#headline p { margin: 14px 0 0; }
.scroll { overflow: auto; max-height: 900px; border: 1px solid #dfe4ea; border-radius: 6px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13.5px; }
table { font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid #e6eaef; white-space: nowrap; }
thead th { position: sticky; top: 0; z-index: 2; background: #f5f7f9; vertical-align: bottom; font-weight: 600; }
tbody th { text-align: left; font-weight: 500; position: sticky; left: 0; background: #fff; z-index: 1; }
tbody th { min-width: 110px; max-width: 230px; white-space: normal; overflow-wrap: anywhere; }
thead .text, td.text { text-align: left; } tbody tr:last-child > * { border-bottom: 0; }
tr.missed > * { color: #6a7480; } tr.missed td.no { color: #b04a00; }
tr.ours > * { background: #e3f0f9; font-weight: 650; color: #1d2733; }
.sortable button { all: unset; cursor: pointer; white-space: normal; }
.sortable button:focus-visible, .tabs button:focus-visible, summary:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.decisions th, .decisions td { vertical-align: top; text-align: left; }
.decisions td:nth-child(6), .decisions td:nth-child(7) { white-space: normal; min-width: 190px; }
.decisions .facts { margin: 3px 0 0; font-size: 12.5px; }
.up { color: #005a8e; } .down { color: #8a4b00; }
code { background: #eef1f5; border-radius: 4px; padding: 0 4px; font-size: 12.5px; }
summary { cursor: pointer; padding: 4px 0; } details[open] summary { margin-bottom: 8px; }
.tabs { display: flex; flex-wrap: wrap; gap: 6px; margin: 6px 0 8px; }
.tabs button { font: inherit; font-size: 13.5px; padding: 3px 12px; border: 1px solid #cfd6de; border-radius: 999px; }
.tabs button { background: #fff; color: inherit; cursor: pointer; overflow-wrap: anywhere; }
.tabs button[aria-selected=true] { background: #0072b2; border-color: #0072b2; color: #fff; }
[role=tabpanel][hidden] { display: none; }
dl { grid-template-columns: minmax(90px, 160px) 1fr; } dt, dd { overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; } section { padding: 14px 12px; } .chart { margin: 0 -6px; }
  h1 { font-size: 21px; } .verdict { font-size: 18px; } tbody th { max-width: 120px; }
  dl { grid-template-columns: 84px 1fr; }
}
@media print {
  body { background: #fff; } main { max-width: none; padding: 0; } .chart { margin: 0; }
  section { border: 0; padding: 6px 0; break-inside: avoid; } #policies, #decisions { break-inside: auto; }
  .scroll { max-height: none; overflow: visible; border: 0; } thead { display: table-row-group; }
  thead th, tbody th { position: static; } tr { break-inside: avoid; }
  th, td { padding: 3px 5px; font-size: 10.5px; } td, tbody th { white-space: normal; }
  .tabs button[aria-selected=false] { display: none; } * { print-color-adjust: exact; }
}
"""

#: Sorting, tabs, and one zoom for all pictures over time.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => i === 0 ? row.cells[0].textContent : row.cells[i].dataset.v;
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");  // nothing measured comes last either way
      return (down ? -1 : 1) * (i === 0 ? x.localeCompare(y, undefined, {numeric: true}) : x - y);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
const tabs = [...document.querySelectorAll("[role=tab]")];
const open = chosen => tabs.forEach(tab => {
  const panel = document.getElementById(tab.getAttribute("aria-controls"));
  tab.setAttribute("aria-selected", String(tab === chosen));
  tab.tabIndex = tab === chosen ? 0 : -1;
  panel.hidden = tab !== chosen;
  if (!panel.hidden) panel.querySelectorAll(".plotly-graph-div").forEach(chart => Plotly.Plots.resize(chart));
});
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    open(next); next.focus();
  });
});
if (tabs.length) open(tabs[0]);
const timed = [...document.querySelectorAll(".plotly-graph-div")].filter(chart => chart.id !== "chart-scatter");
// A finger on a picture scrolls the page; only a mouse zooms.
if (matchMedia("(pointer: coarse)").matches)
  document.querySelectorAll(".plotly-graph-div").forEach(chart => Plotly.relayout(chart, {dragmode: false}));
let zooming = false;
for (const chart of timed) chart.on("plotly_relayout", async change => {
  if (zooming || !Object.keys(change).some(key => key.startsWith("xaxis"))) return;
  zooming = true;
  const range = [...chart._fullLayout.xaxis.range];
  const others = timed.filter(other => other !== chart);
  const axes = other => Object.keys(other._fullLayout).filter(key => /^xaxis[0-9]*$/.test(key));
  await Promise.all(others.map(other =>
    Plotly.relayout(other, Object.fromEntries(axes(other).map(axis => [axis + ".range", range.slice()])))));
  zooming = false;
});
addEventListener("beforeprint", () => document.querySelectorAll(".plotly-graph-div").forEach(
  chart => chart.offsetParent && Plotly.Plots.resize(chart)));
"""
