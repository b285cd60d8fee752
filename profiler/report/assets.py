"""Style of the report's page, beside what all our pages share; it is put inside the page."""

from __future__ import annotations

#: The browser itself is told to load nothing, so that a page from elsewhere cannot call home.
POLICY_OF_PAGE = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:\">"
)

STYLES = """
main { max-width: 1120px; } h1 { margin-bottom: 2px; overflow-wrap: anywhere; }
h1 + .facts { margin-bottom: 18px; } section { overflow-wrap: anywhere; } h3 { font-size: 15.5px; margin: 22px 0 0; }
.verdict { font-size: 21px; line-height: 1.3; margin-bottom: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; }
.tile { border: 1px solid #dfe4ea; border-radius: 8px; padding: 12px 16px; display: flex; flex-direction: column; }
.tile .under { color: #57636f; font-size: 13px; }
.tile .big { font-size: 28px; font-weight: 650; line-height: 1.35; font-variant-numeric: tabular-nums; }
.tile small { font-size: 14px; font-weight: 400; color: #57636f; }
.yes { color: #00704f; } .no { color: #b04a00; } .notes { color: #6b4a00; padding-left: 20px; margin: 10px 0 0; }
.scroll { overflow: auto; max-height: 900px; border: 1px solid #dfe4ea; border-radius: 6px; margin-top: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13.5px; }
table { font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid #e6eaef; white-space: nowrap; }
thead th { background: #f5f7f9; vertical-align: bottom; font-weight: 600; }
tbody th { text-align: left; font-weight: 500; background: #fff; }
thead .text, td.text { text-align: left; } td.words { text-align: left; white-space: normal; min-width: 180px; }
tbody tr:last-child > * { border-bottom: 0; } td.no { font-weight: 600; }
code, pre { background: #eef1f5; border-radius: 4px; padding: 0 4px; font-size: 12.5px; }
pre { padding: 8px 10px; overflow: auto; max-height: 320px; white-space: pre-wrap; }
summary { cursor: pointer; padding: 4px 0; margin-top: 10px; } summary:focus-visible { outline: 2px solid #0072b2; }
dl { grid-template-columns: minmax(90px, 160px) 1fr; } dt, dd { overflow-wrap: anywhere; }
.caption { color: #57636f; margin: 2px 0 4px; font-size: 13.5px; }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; } section { padding: 14px 12px; } .chart { margin: 0 -6px; }
  h1 { font-size: 21px; } .verdict { font-size: 18px; } .tile .big { font-size: 23px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile { padding: 9px 11px; }
  dl { grid-template-columns: 84px 1fr; } th, td { padding: 5px 7px; }
}
@media print {
  body { background: #fff; } main { max-width: none; padding: 0; } .chart { margin: 0; }
  section { border: 0; padding: 6px 0; } .scroll { max-height: none; overflow: visible; border: 0; }
  .chart, tr { break-inside: avoid; } * { print-color-adjust: exact; }
}
"""

#: A finger on a picture scrolls the page; only a mouse zooms.
SCRIPT = """
"use strict";
if (matchMedia("(pointer: coarse)").matches)
  document.querySelectorAll(".plotly-graph-div").forEach(chart => Plotly.relayout(chart, {dragmode: false}));
addEventListener("beforeprint", () => document.querySelectorAll(".plotly-graph-div").forEach(
  chart => chart.offsetParent && Plotly.Plots.resize(chart)));
"""
