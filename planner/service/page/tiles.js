// The head of the page: banner, verdict and tiles.

import {$, made, setText} from "./dom.js";
import {activeErrors, at, gpusHeld, plannerWall, speedUp} from "./state.js";
import {recentAttainment, verdict} from "./verdict.js";
import {clockText, latencyText, number, percent, spanText, wanted} from "./words.js";

export function showBanner() {
  const silent = at.cause !== "";
  if (silent) setText($("banner"), `planner does not answer since ${clockText(at.silentSince)}`);
  $("banner").title = at.cause;
  $("banner").hidden = !silent;
  document.body.classList.toggle("away", silent);
  showCountdown();
}

export function showState() {
  const {state} = at,
    {settings, clock} = state;
  document.title = `${state.graph} - Plimsoll`;
  setText($("graph"), state.graph);
  setText(
    $("about"),
    `${state.model}. SLA: TTFT within ${settings.sla.ttft_ms} ms and ITL within ${settings.sla.itl_ms} ms for ` +
      `${wanted(settings.sla.attainment)} of requests. ${state.identity}, up ${spanText(state.uptime_s)}.`,
  );
  $("speed").hidden = clock.speed_up === 1;
  const since = at.rows.length ? clockText(at.rows[0].t) : "the start";
  setText(
    $("speed"),
    `${clock.speed_up}x: simulated time runs ${clock.speed_up} times as fast as the clock. Latencies, rates and ` +
      `durations are the simulated engine's; +m:ss counts its time since ${since}.`,
  );
  const said = verdict();
  $("verdict").dataset.tone = said.tone;
  setText($("verdict"), {good: "✓ ", bad: "✗ ", warn: "! ", none: ""}[said.tone] + said.text);
  if ($("notes").textContent !== said.notes.join(""))
    $("notes").replaceChildren(...said.notes.map(note => made("li", "", note)));
  $("notes").hidden = said.notes.length === 0;
  showTiles();
}

/** A tile's figure with its unit, or why there is none, and what stands under it; `ok` colours the latter. */
function tile(name, figure, unit, under = "", ok = null) {
  const [, big, small] = $(`tile-${name}`).children;
  const shown = figure + unit + under + ok;
  if (big.dataset.shown === shown) return;
  big.dataset.shown = shown;
  big.className = unit === null ? "big words" : "big";
  big.replaceChildren(figure, ...(unit ? [made("small", "", ` ${unit}`)] : []));
  small.textContent = under;
  small.className = `under${ok === null ? "" : ok ? " ok" : " over"}`;
}

const unknownTile = (name, reason, under = "") => tile(name, `unknown: ${reason}`, null, under);

function showTiles() {
  const {state} = at,
    {settings, lease} = state,
    {sla} = settings,
    seen = state.last?.observation,
    last = at.rows.at(-1);
  const recent = recentAttainment(),
    span = spanText(recent.spanS ?? 0);
  if (recent.share !== undefined) {
    const ok = recent.share >= sla.attainment;
    tile(
      "attainment",
      percent(recent.share).slice(0, -2),
      "%",
      `${ok ? "✓" : "✗"} last ${span}, target ${wanted(sla.attainment)}`,
      ok,
    );
  } else if (recent.idle) tile("attainment", "no requests", null, `last ${span}`);
  else unknownTile("attainment", recent.unknown);

  const absent = activeErrors()[0]?.[1].text ?? "no tick yet";
  const reading = field => seen?.[field] ?? {unknown: absent};
  const arrivals = reading("arrivals");
  const sized = last?.demand ? `sized for ${number(last.demand.rate_rps)}/s` : "no demand to size for";
  if (arrivals.unknown !== undefined) unknownTile("rate", arrivals.unknown, sized);
  else tile("rate", number(arrivals.value / seen.interval_s), "requests/s", sized);

  for (const [name, limit] of [
    ["ttft", sla.ttft_ms],
    ["itl", sla.itl_ms],
  ]) {
    const found = reading(`${name}_ms`);
    if (found.unknown !== undefined) {
      unknownTile(name, found.unknown, `SLA ${limit} ms`);
      continue;
    }
    const ok = found.value <= limit;
    tile(name, latencyText(found.value), "ms", `${ok ? "✓ within" : "✗ over"} ${limit} ms`, ok);
  }

  const pools = seen?.pools ?? {unknown: absent};
  if (typeof pools.unknown === "string") unknownTile("gpus", pools.unknown, `budget ${settings.max_gpus}`);
  else {
    const words = settings.pools.map(({name}) => {
      const pool = pools[name];
      if (!pool) return `${name} unknown`;
      const extra = [
        [pool.starting, "starting"],
        [pool.terminating, "draining"],
      ]
        .filter(([n]) => n)
        .map(([n, what]) => `${n} ${what}`);
      return `${name} ${pool.ready}` + (extra.length ? ` (${extra.join(", ")})` : "");
    });
    tile("gpus", String(gpusHeld(pools)), `of ${settings.max_gpus}`, words.join(", "));
  }

  if (!lease) unknownTile("lease", state.errors?.lease?.active ? state.errors.lease.text : absent);
  else
    tile(
      "lease",
      lease.held ? "this planner" : lease.holder || "no one",
      null,
      lease.held ? lease.holder : "this planner stands by",
    );
  showCountdown();
}

export function showCountdown() {
  if (!at.state) return;
  const {settings, last} = at.state,
    interval = settings.interval_s / speedUp();
  const every = `every ${spanText(settings.interval_s)}` + (speedUp() === 1 ? "" : `, ${+interval.toFixed(1)} s here`);
  if (!last?.decision) return tile("tick", "soon", null, every);
  const left = Date.parse(last.decision.time) / 1000 + interval - plannerWall() / 1000;
  if (at.cause) tile("tick", "unknown: planner does not answer", null, every);
  else if (left < -2 * interval) tile("tick", `overdue by ${spanText(-left)}`, null, every, false);
  else tile("tick", `${Math.max(0, Math.ceil(left))}`, "s", every);
}
