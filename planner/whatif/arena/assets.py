"""Style and script of the arena's page, beside what our pages share."""

from __future__ import annotations

STYLES = """
main { max-width: 1320px; }
.under { margin-top: 12px; } h2.verdict { font-size: 19px; } a { color: #0072b2; }
tr.bound > * { color: #00704f; font-style: italic; }
td.text { white-space: normal; min-width: 180px; overflow-wrap: anywhere; }
section.case .scroll { max-height: 640px; } .lazy { overflow: hidden; }
"""

#: Draws a picture when it comes near the window: a hundred at once would keep a browser busy for a minute.
SCRIPT = """
"use strict";
const draw = place => {
  const code = document.querySelector('script[data-for="' + place.id + '"]');
  const figure = JSON.parse(code.textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {displayModeBar: false, responsive: true});
};
const watcher = new IntersectionObserver(seen => {
  for (const one of seen) if (one.isIntersecting) { watcher.unobserve(one.target); draw(one.target); }
}, {rootMargin: "800px 0px"});
const places = document.querySelectorAll(".lazy");
places.forEach(place => watcher.observe(place));
addEventListener("beforeprint", () => places.forEach(place => {
  if (!place.firstChild) { watcher.unobserve(place); draw(place); }
}));
"""
