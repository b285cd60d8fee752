// The API: questions to the planner, and the decisions that are new.

import {$} from "./dom.js";
import {at} from "./state.js";

const DAY_MS = 86_400_000,
  PAGE = 1000,
  REQUEST_MS = 8000;

export async function ask(path, text = false) {
  const answer = await fetch(path, {signal: AbortSignal.timeout(REQUEST_MS), cache: "no-store"});
  if (!answer.ok) throw new Error(`HTTP ${answer.status}: ${(await answer.text()).slice(0, 300).trim()}`);
  return text ? answer.text() : answer.json();
}

/** Fetch what is new; true if anything is. */
export async function pull() {
  const newest = at.state.last?.decision?.id;
  const before = at.rows.at(-1)?.id;
  // A clock that was set back takes decisions away, and a journal that was read to its end brings older ones.
  if ((before !== undefined && newest != null && newest < before) || (!at.complete && at.state.history?.complete))
    at.rows = [];
  let changed = at.rows.length === 0 && before !== undefined;
  for (;;) {
    const page = await ask(`api/decisions?since=${at.rows.at(-1)?.id ?? 0}&limit=${PAGE}`);
    at.complete = page.complete ?? true;
    for (const row of page.decisions) {
      row.t = Date.parse(row.time);
      row.pools = row.pools ?? row.supply ?? {};
      at.rows.push(row);
    }
    changed ||= page.decisions.length > 0;
    if (page.decisions.length < PAGE) break;
    $("shown").textContent = `loading the history: ${at.rows.length.toLocaleString("en")} decisions`;
  }
  const oldest = (at.rows.at(-1)?.t ?? 0) - 1.05 * DAY_MS;
  if (at.rows.length && at.rows[0].t < oldest) at.rows = at.rows.filter(row => row.t >= oldest + 0.05 * DAY_MS);
  at.zeroS ??= at.rows[0]?.at_s ?? null;
  return changed;
}
