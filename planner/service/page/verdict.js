// What the page says first: whether the SLA is met, and what stands in its way.

import {activeErrors, at} from "./state.js";
import {clockText, latencyText, levelText, percent, spanText, spoken, wanted} from "./words.js";

//: Planner seconds that the verdict looks back on.
const VERDICT_S = 600;

const CONSEQUENCE = {
  reactive: "saturated pools may grow; nothing is scaled down",
  hold: "nothing is scaled down",
  last_good: "the last good plan stands",
};

/** Share of the requests of the last minutes that attained, weighted by what arrived; what is unknown is left out. */
export function recentAttainment() {
  const last = at.rows.at(-1);
  if (!last) return {unknown: "no decision yet"};
  const rows = [],
    interval = at.state.settings.interval_s;
  for (let i = at.rows.length - 1; i >= 0 && at.rows[i].at_s > last.at_s - VERDICT_S; i--) rows.push(at.rows[i]);
  const known = rows.filter(row => row.arrivals_rps !== null && (row.attainment !== null || row.arrivals_rps === 0));
  const rate = known.reduce((sum, row) => sum + row.arrivals_rps, 0);
  const spanS = Math.min(VERDICT_S, last.at_s - rows.at(-1).at_s + interval);
  if (2 * known.length < rows.length) {
    const reading = at.state.last?.observation.attainment;
    return {spanS, unknown: reading?.unknown ?? `measured at ${known.length} of ${rows.length} ticks only`};
  }
  if (rate === 0) return {spanS, idle: true};
  const share = known.reduce((sum, row) => sum + row.arrivals_rps * (row.attainment ?? 0), 0) / rate;
  return {spanS, share, missing: rows.length - known.length, ticks: rows.length};
}

/** What to say first: {tone, text, notes}. */
export function verdict() {
  const {state} = at,
    target = state.settings.sla.attainment,
    recent = recentAttainment(),
    last = at.rows.at(-1);
  const notes = [],
    span = spanText(recent.spanS ?? 0);
  let tone = "none",
    text;
  if (recent.share !== undefined) {
    tone = recent.share >= target ? "good" : "bad";
    const verb = tone === "good" ? "Meeting" : "Missing";
    text = `${verb} the SLA: ${percent(recent.share)} of requests in the last ${span}, target ${wanted(target)}`;
    if (recent.missing) notes.push(`Attainment is unknown for ${recent.missing} of the last ${recent.ticks} ticks.`);
  } else if (recent.idle) text = `No requests in the last ${span}`;
  else text = last ? `Attainment unknown: ${recent.unknown}` : "Waiting for the first decision";
  const {level} = state;
  if (level && level !== "model") {
    const why = spoken(state.last?.decision?.reasons ?? [])[0] ?? activeErrors()[0]?.[1].text ?? "reason not recorded";
    if (last) notes.unshift(text);
    text = `${levelText(level).toUpperCase()}: ${why}; ${CONSEQUENCE[level] ?? "see the decision"}`;
    tone = "warn";
  }
  if (!state.last && activeErrors().length) [text, tone] = [`No decision: ${activeErrors()[0][1].text}`, "warn"];
  if (last?.sla_reachable === false) {
    const near = last.nearest;
    notes.push(
      "No number of workers meets this SLA" +
        (near
          ? `; the nearest that can be met: TTFT ${latencyText(near.ttft_ms)} ms, ITL ${latencyText(near.itl_ms)} ms.`
          : "."),
    );
  }
  if (state.lease && !state.lease.held)
    notes.push(
      `Standby: ${state.lease.holder || "no planner"} holds the lease; decisions are recorded here, not carried out.`,
    );
  else
    for (const [pool, done] of Object.entries(last?.outcome ?? {}))
      if (/^(failed|not applied)/.test(done)) notes.push(`${pool === "*" ? "The plan" : pool}: ${done}`);
  notes.push(...(state.notices ?? []));
  for (const gap of last?.gaps ?? []) if (!text.includes(gap)) notes.push(`Not seen: ${gap}`);
  for (const [stage, fault] of activeErrors())
    if (!text.includes(fault.text) && !notes.some(note => note.includes(fault.text)))
      notes.push(`${stage} fails since ${clockText(fault.since_s * 1000)} (${fault.in_a_row} in a row): ${fault.text}`);
  return {tone, text, notes};
}
