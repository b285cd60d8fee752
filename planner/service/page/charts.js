// Draws the pictures that are in view, and lets them be zoomed and clicked.

import {$, choose, setText} from "./dom.js";
import {layoutOf} from "./layout.js";
import {PICTURES} from "./pictures.js";
import {columns, firstAt, groupsIn, periods, view} from "./series.js";
import {at} from "./state.js";
import {unlocal} from "./traces.js";
import {clockText, spanText} from "./words.js";

const visible = new Set(),
  stale = new Set();
let shared = null,
  queued = false;

/** Draw the pictures that are on the screen, soon and once; the others when they come into view. */
export function draw() {
  for (const name in PICTURES) stale.add(name);
  shared = null;
  soon();
}

function soon() {
  if (!queued) {
    queued = true;
    requestAnimationFrame(drawStale);
  }
}

function drawStale() {
  queued = false;
  if (document.hidden || !at.state || !window.Plotly) return;
  if (!shared) {
    const shown = view(),
      groups = groupsIn(shown);
    shared = {
      shown,
      c: columns(groups),
      bands: periods(groups.rows, shown).filter(band => band.to > shown[0] && band.from < shown[1]),
    };
    showSpan(shown, groups);
  }
  // One picture a frame, so that the page answers to its user between two.
  const name = [...stale].find(one => visible.has(one));
  if (!name) return;
  stale.delete(name);
  const chart = $(`chart-${name}`),
    picture = PICTURES[name](shared.c, shared.shown);
  const layout = layoutOf(picture, shared.shown, shared.bands, chart);
  Plotly.react(chart, picture.data, layout, {displayModeBar: false, responsive: true, doubleClick: false});
  if (!chart.dataset.wired) wire(chart);
  soon();
}

function showSpan(shown, {width}) {
  const interval = at.state.settings.interval_s,
    n = at.rows.length;
  const names = document.querySelectorAll("[data-span]");
  for (const button of names)
    button.setAttribute("aria-pressed", String(!at.zoom && +button.dataset.span === at.spanS));
  $("live").hidden = !at.zoom;
  const merged = width > interval ? ` A point stands for ${spanText(width)}: the worst latency, the most workers.` : "";
  const zoomed = at.zoom ? `${clockText(shown[0])} to ${clockText(shown[1])}. ` : "";
  setText(
    $("shown"),
    n ? `${zoomed}${n.toLocaleString("en")} decisions since ${clockText(at.rows[0].t)}.${merged}` : "no decisions yet",
  );
}

function wire(chart) {
  chart.dataset.wired = "yes";
  chart.on("plotly_relayout", change => {
    if (!("xaxis.range[0]" in change)) return;
    const axis = chart._fullLayout.xaxis,
      [from, to] = axis.range.map(end => unlocal(axis.r2c(end)));
    if (to - from >= 1000) at.zoom = [from, to];
    draw();
  });
  chart.on("plotly_doubleclick", () => {
    at.zoom = null;
    draw();
  });
  chart.on("plotly_click", event => {
    const axis = chart._fullLayout.xaxis,
      box = chart.querySelector(".nsewdrag").getBoundingClientRect();
    const ms = unlocal(axis.p2c(event.event.clientX - box.left));
    const next = firstAt(ms),
      [before, after] = [at.rows[next - 1], at.rows[next]];
    const nearest = !before || (after && after.t - ms < ms - before.t) ? after : before;
    if (nearest) choose(nearest.id, chart);
  });
}

/** Know from now on which pictures are in view. */
export function watch() {
  const watcher = new IntersectionObserver(
    entries => {
      for (const {target, isIntersecting} of entries) {
        const name = target.id.slice("chart-".length);
        if (isIntersecting) visible.add(name);
        else visible.delete(name);
      }
      soon();
    },
    {rootMargin: "200px"},
  );
  for (const name in PICTURES) watcher.observe($(`chart-${name}`));
}
