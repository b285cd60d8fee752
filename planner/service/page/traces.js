// What the pictures are made of, for plotly, which reads markup: text from the API must be escaped.

import {most} from "./series.js";
import {at, speedUp} from "./state.js";

export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const escaped = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
/** Plotly takes a date without a zone as it stands, so that it must be shifted to be local. */
export const local = ms => ms - 60_000 * new Date(ms).getTimezoneOffset();
export const unlocal = ms => ms + 60_000 * new Date(ms).getTimezoneOffset();
export const faded = (hex, alpha) =>
  hex +
  Math.round(255 * alpha)
    .toString(16)
    .padStart(2, "0");

export const line = (name, x, y, tone, extra = {}) => ({
  type: "scatter",
  mode: "lines",
  name,
  x: x.map(local),
  y,
  connectgaps: false,
  hovertemplate: "%{y:,.1f}",
  ...extra,
  line: {color: tone, width: 1.8, ...extra.line},
});
export const level = (name, y, shown, extra = {}) =>
  line(name, shown, [y, y], colour("ink"), {
    hoverinfo: "skip",
    hovertemplate: undefined,
    ...extra,
    line: {width: 1.3, dash: "dash"},
  });

/** Counts that hold from one tick to the next, as bars; equal neighbours are one. `values(row)` null is a gap. */
export function steps(c, values) {
  const tick = (1000 * at.state.settings.interval_s) / speedUp(),
    runs = [];
  c.fullest.forEach((row, i) => {
    const now = row && values(row);
    if (!now) return;
    const from = c.t[i],
      to = c.fullest[i + 1] ? c.t[i + 1] : from + tick,
      last = runs.at(-1);
    if (last && last.to === from && last.now.every((value, k) => value === now[k])) last.to = to;
    else runs.push({from, to, now});
  });
  const bar = (name, k, tone, extra = {}) => ({
    type: "bar",
    name,
    x: runs.map(run => local(run.from)),
    width: runs.map(run => run.to - run.from),
    offset: 0,
    y: runs.map(run => run.now[k]),
    marker: {color: tone, line: {width: 0}},
    hovertemplate: "%{y:,.0f}",
    ...extra,
  });
  // A step's last value is drawn to its end.
  const path = (name, k, extra = {}) =>
    line(
      name,
      runs.flatMap((run, i) => (runs[i + 1]?.from === run.to ? [run.from] : [run.from, run.to, run.to])),
      runs.flatMap((run, i) => (runs[i + 1]?.from === run.to ? [run.now[k]] : [run.now[k], run.now[k], null])),
      colour("ink"),
      {hovertemplate: "%{y:,.0f}", ...extra, line: {width: 1.6, dash: "dot", shape: "hv"}},
    );
  return {bar, path, highest: Math.max(1, ...runs.map(run => most(run.now)))};
}
