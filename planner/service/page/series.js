// Decisions as series for the pictures: what is in view, thinned, with its gaps.

import {at, gpusHeld, plannerWall, speedUp} from "./state.js";

//: Points that a line has at most; a screen is hardly wider in pixels.
const MOST_POINTS = 500;

/** Place of the first row at or after a time. */
export function firstAt(ms) {
  let low = 0,
    high = at.rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at.rows[middle].t < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** [from, to] of the pictures, unix ms: what was zoomed to, or the span up to now and what is forecast. */
export function view() {
  if (at.zoom) return at.zoom;
  const {settings} = at.state,
    now = Math.max(plannerWall(), at.rows.at(-1)?.t ?? 0);
  const from = Math.max(now - 1000 * at.spanS, Math.min(at.rows[0]?.t ?? now, now - 60_000));
  const ahead = (1000 * (settings.lead_time_s + 2 * settings.interval_s)) / speedUp();
  return [from, now + Math.min(ahead, 0.12 * (now - from))];
}

/** Rows in view, in groups of equal planner time where they are more than a picture can show; null is a gap. */
export function groupsIn([from, to]) {
  const rows = at.rows.slice(Math.max(0, firstAt(from) - 1), firstAt(to) + 1),
    interval = at.state.settings.interval_s;
  const width = interval * Math.max(1, Math.ceil(rows.length / MOST_POINTS)),
    groups = [];
  let key = null,
    before = null;
  for (const row of rows) {
    // Groups begin at round times, so that a new tick changes the last of them only.
    const own = width > interval ? Math.floor(row.at_s / width) : row.id;
    const gap = before && row.at_s - before.at_s > 2.5 * interval;
    if (gap) groups.push(null);
    if (own !== key || gap) groups.push([row]);
    else groups.at(-1).push(row);
    [key, before] = [own, row];
  }
  return {rows, groups, width};
}

const over = (rows, field, reduce) => {
  const known = rows.map(field).filter(value => value !== null && value !== undefined && Number.isFinite(value));
  return known.length ? reduce(known) : null;
};
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
export const most = values => Math.max(...values);

/** The groups as one array per quantity, null where unknown; shared by all pictures. */
export function columns({groups, width}) {
  const pick = (field, reduce) => groups.map(rows => rows && over(rows, field, reduce));
  const gapAt = i => (groups[i - 1].at(-1).t + groups[i + 1][0].t) / 2;
  const t = groups.map((rows, i) => (rows ? rows[rows.length >> 1].t : gapAt(i)));
  // A rate is drawn at the middle of the interval that it is of, which ends at the tick, or for a forecast at `for_s`.
  const halfS = at.state.settings.interval_s / 2,
    half = (1000 * halfS) / speedUp();
  const ahead = groups.map((rows, i) =>
    rows
      ? t[i] +
        (1000 * (over(rows, row => row.forecast && row.forecast.for_s - halfS - row.at_s, mean) ?? 0)) / speedUp()
      : t[i],
  );
  // Of a group the row with most workers stands for all: peaks are what GPUs are paid for.
  const fullest = groups.map(
    rows => rows && rows.reduce((best, row) => (gpusHeld(row.pools) > gpusHeld(best.pools) ? row : best)),
  );
  return {
    t,
    arrived: t.map(ms => ms - half),
    ahead,
    fullest,
    width,
    arrivals: pick(row => row.arrivals_rps, mean),
    sized: pick(row => row.demand?.rate_rps ?? null, most),
    median: pick(row => row.forecast?.median_rps ?? null, mean),
    high: pick(row => row.forecast?.high_rps ?? null, mean),
    ttft: pick(row => row.ttft_ms, most),
    itl: pick(row => row.itl_ms, most),
    attainment: groups.map(rows => {
      const known = (rows ?? []).filter(
        row => row.attainment !== null && row.arrivals_rps !== null && row.arrivals_rps > 0,
      );
      const rate = known.reduce((sum, row) => sum + row.arrivals_rps, 0);
      return rate > 0 ? known.reduce((sum, row) => sum + row.attainment * row.arrivals_rps, 0) / rate : null;
    }),
  };
}

/** Spans in which the planner was degraded or silent: {from, to, name}; nearby ones of a name are one. */
export function periods(rows, [from, to]) {
  const found = [],
    tick = (1000 * at.state.settings.interval_s) / speedUp(),
    near = Math.max(1.5 * tick, (to - from) / 300);
  const add = (name, start, end) => {
    const last = found.findLast(period => period.name === name);
    if (last && start - last.to <= near) last.to = end;
    else found.push({name, from: start, to: end});
  };
  rows.forEach((row, i) => {
    const next = rows[i + 1]?.t ?? row.t + tick,
      gap = next - row.t > 2.5 * tick;
    if (row.level !== "model") add(row.level, row.t, gap ? row.t + tick : next);
    if (gap) add("no ticks", row.t + tick, next);
  });
  return found;
}
