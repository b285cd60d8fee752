// Axes, shades and marks around a picture.

import {most} from "./series.js";
import {at, speedUp} from "./state.js";
import {colour, escaped, faded, local, unlocal} from "./traces.js";
import {clockText, elapsedText, levelText} from "./words.js";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Marks of the time axis: wall clock, with planner seconds elapsed beneath where these differ. */
function timeTicks([from, to], width) {
  const step = 1000 * (STEPS_S.find(s => (to - from) / 1000 / s <= Math.max(3, width / 95)) ?? 86400),
    values = [],
    texts = [];
  const last = at.rows.at(-1);
  for (let x = Math.ceil(local(from) / step) * step; x <= local(to); x += step) {
    const ms = unlocal(x),
      text = clockText(ms);
    values.push(x);
    texts.push(
      (step < 60_000 ? text : text.slice(0, 5)) +
        (speedUp() === 1 || !last
          ? ""
          : `<br>${elapsedText(last.at_s + ((ms - last.t) / 1000) * speedUp(), step >= 60_000)}`),
    );
  }
  return {tickmode: "array", tickvals: values, ticktext: texts};
}

/** A logarithmic axis whose labels are whole numbers. */
function logAxis(limit, values) {
  const found = values.filter(value => value > 0),
    top = most([limit, ...found]),
    bottom = Math.min(limit / 4, ...found),
    marks = [];
  for (let power = Math.floor(Math.log10(bottom)); power <= Math.ceil(Math.log10(top)); power++)
    for (const digit of top / bottom < 1e3 ? [1, 2, 5] : [1]) marks.push(digit * 10 ** power);
  return {
    type: "log",
    rangemode: "normal",
    range: [Math.log10(bottom * 0.8), Math.log10(top * 1.3)],
    tickvals: marks,
    ticktext: marks.map(v => `${+v.toPrecision(1)}`),
  };
}

export function layoutOf(picture, shown, bands, chart) {
  const ink = colour("ink"),
    soft = colour("soft"),
    n = Math.max(picture.y.length, 1),
    gap = 0.07;
  const small = chart.clientWidth < 500;
  const layout = {
    height: picture.height + (small ? 30 : 0),
    margin: {l: 58, r: 14, t: 12, b: speedUp() === 1 ? 30 : 46},
    showlegend: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    barmode: "stack",
    hovermode: "x unified",
    font: {family: "system-ui, sans-serif", size: 12.5, color: ink},
    hoverlabel: {bgcolor: colour("card"), bordercolor: colour("line"), font: {color: ink}},
    legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {size: 12}, traceorder: "normal"},
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: {
      type: "date",
      range: shown.map(local),
      gridcolor: colour("grid"),
      zeroline: false,
      hoverformat: "%H:%M:%S",
      anchor: `y${n > 1 ? n : ""}`,
      tickfont: {color: soft},
      ...timeTicks(shown, chart.clientWidth - 70),
    },
    shapes: [],
    uirevision: "same",
  };
  picture.y.forEach((title, k) => {
    const share = (1 - gap * (n - 1)) / n,
      top = 1 - k * (share + gap);
    const values = picture.data
      .filter(trace => (trace.yaxis ?? "y") === `y${k ? k + 1 : ""}`)
      .flatMap(trace => trace.y);
    layout[`yaxis${k ? k + 1 : ""}`] = {
      title: {text: escaped(title), font: {size: 12.5}},
      domain: [Math.max(0, top - share), top],
      fixedrange: true,
      zeroline: false,
      gridcolor: colour("grid"),
      separatethousands: true,
      tickfont: {color: soft},
      rangemode: "tozero",
      nticks: n > 1 ? 5 : 7,
      ...(picture.tops ? {range: [0, picture.tops[k]]} : {}),
      ...(picture.range ? {range: picture.range} : {}),
      ...(picture.percent ? {tickformat: picture.range[1] - picture.range[0] > 0.08 ? ".0%" : ".1%"} : {}),
      ...(picture.whole ? {tickformat: ",d", ...(picture.tops[k] < 7 ? {dtick: 1} : {})} : {}),
      ...(picture.logs?.[k] ? logAxis(picture.logs[k], values) : {}),
    };
  });
  const tone = {reactive: "orange", hold: "rust", last_good: "pink"};
  for (const {name, from, to} of bands) {
    const wide =
      ((Math.min(to, shown[1]) - Math.max(from, shown[0])) / (shown[1] - shown[0])) * (chart.clientWidth - 72);
    layout.shapes.push({
      type: "rect",
      xref: "x",
      yref: "paper",
      x0: local(Math.max(from, shown[0])),
      x1: local(Math.min(to, shown[1])),
      y0: 0,
      y1: 1,
      layer: "below",
      line: {width: 0},
      fillcolor: faded(colour(tone[name] ?? "grey"), 0.2),
      name,
      label:
        wide > 7 * name.length + 6
          ? {text: escaped(levelText(name)), textposition: "top left", padding: 3, font: {size: 11, color: ink}}
          : {},
    });
  }
  const chosen = at.rows.find(row => row.id === at.selected);
  if (chosen)
    layout.shapes.push({
      type: "line",
      xref: "x",
      yref: "paper",
      x0: local(chosen.t),
      x1: local(chosen.t),
      y0: 0,
      y1: 1,
      line: {color: colour("accent"), width: 2},
    });
  return layout;
}
