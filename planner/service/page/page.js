// The live page: asks the API for the planner's state and for decisions that are new, and shows both.
// Text from the API reaches the page through textContent alone; in pictures, where plotly reads markup, escaped.

const $ = id => document.getElementById(id);
const DAY_MS = 86_400_000,
  PAGE = 1000,
  REQUEST_MS = 8000;

//: Points that a line has at most, and decisions that the list shows at once; a screen is hardly wider in pixels.
const MOST_POINTS = 500,
  LISTED = 100;

//: Planner seconds that the verdict looks back on.
const VERDICT_S = 600;

const CONSEQUENCE = {
  reactive: "saturated pools may grow; nothing is scaled down",
  hold: "nothing is scaled down",
  last_good: "the last good plan stands",
};

const at = {
  state: null,
  gotAt: 0, // the API's last answer, and when, by performance.now()
  rows: [], // summaries of decisions, oldest first; `t` is their unix time in ms
  complete: false, // whether the API had read its journal when `rows` were loaded
  zeroS: null, // planner seconds that elapsed ones count from
  spanS: 3600,
  zoom: null, // seconds shown, up to now; or [from, to] in unix ms
  selected: null,
  opener: null, // id of the decision in the panel, and what had the focus before
  silentSince: Date.now(),
  cause: "",
};

// -- words ------------------------------------------------------------------------------------------------------------

const speedUp = () => at.state?.clock.speed_up ?? 1;
const two = n => String(n).padStart(2, "0");
const clockText = ms => {
  const d = new Date(ms);
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map(two).join(":");
};
const number = (value, digits = 1) =>
  value.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits});
const latencyText = ms => number(ms, ms >= 100 ? 0 : 1);
const levelText = level => level.replaceAll("_", " ");

/** A share with one decimal, rounded down: 94.99 % must not read as the 95 % that it misses. */
const percent = share => `${number(Math.floor(share * 1000 + 1e-7) / 10)} %`;
/** A target as it was asked for, without zeros. */
const wanted = share => `${+(100 * share).toPrecision(6)} %`;

function spanText(seconds) {
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 2 * 86400 ? `${+(s / 3600).toFixed(1)} h` : `${+(s / 86400).toFixed(1)} days`;
}

/** Planner seconds since the history's start: +m:ss or +h:mm:ss; for the marks of an axis +1h23 from the first hour. */
function elapsedText(plannerS, short = false) {
  const s = Math.round(Math.abs(plannerS - at.zeroS)),
    h = Math.floor(s / 3600);
  if (short && h) return `${plannerS < at.zeroS ? "-" : "+"}${h}h${two(Math.floor(s / 60) % 60)}`;
  return (
    (plannerS < at.zeroS ? "-" : "+") +
    (h ? `${h}:${two(Math.floor(s / 60) % 60)}` : Math.floor(s / 60)) +
    `:${two(s % 60)}`
  );
}

const whenText = row => clockText(row.t) + (speedUp() === 1 ? "" : ` (${elapsedText(row.at_s)})`);

/** Pools whose count a decision changes, as [name, before, after]; an unknown present is no change. */
const moves = row =>
  Object.entries(row.plan)
    .filter(([name, count]) => name in row.current && row.current[name] !== count)
    .map(([name, count]) => [name, row.current[name], count]);

/** A reason in words, not a code: those have spaces. */
const spoken = reasons => reasons.filter(reason => /\s/.test(reason));

const activeErrors = () => Object.entries(at.state.errors ?? {}).filter(([, fault]) => fault.active);

/** Share of the requests of the last minutes that attained, weighted by what arrived; what is unknown is left out. */
function recentAttainment() {
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
function verdict() {
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
  for (const gap of last?.gaps ?? []) if (!text.includes(gap)) notes.push(`Not seen: ${gap}`);
  for (const [stage, fault] of activeErrors())
    if (!text.includes(fault.text) && !notes.some(note => note.includes(fault.text)))
      notes.push(`${stage} fails since ${clockText(fault.since_s * 1000)} (${fault.in_a_row} in a row): ${fault.text}`);
  return {tone, text, notes};
}

// -- the API ----------------------------------------------------------------------------------------------------------

async function ask(path, text = false) {
  const answer = await fetch(path, {signal: AbortSignal.timeout(REQUEST_MS), cache: "no-store"});
  if (!answer.ok) throw new Error(`HTTP ${answer.status}: ${(await answer.text()).slice(0, 300).trim()}`);
  return text ? answer.text() : answer.json();
}

/** Fetch what is new; true if anything is. */
async function pull() {
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

async function poll() {
  let wait = 2000;
  try {
    const first = at.state === null;
    at.state = await ask("api/state");
    at.gotAt = performance.now();
    const changed = (await pull()) || first;
    at.cause = "";
    at.silentSince = Date.now();
    showState();
    if (changed) {
      showList();
      draw();
    }
    const {interval_s} = at.state.settings;
    wait = Math.min(5000, Math.max(700, (1000 * interval_s) / speedUp() / 3));
  } catch (error) {
    // A refused connection, a time limit and an answer that is none: each is told, and the next poll tries again.
    at.cause = error.message || String(error);
    console.warn(`poll: ${at.cause}`);
  }
  showBanner();
  setTimeout(poll, wait);
}

// -- banner, verdict, tiles -------------------------------------------------------------------------------------------

function showBanner() {
  const silent = at.cause !== "";
  if (silent) setText($("banner"), `planner does not answer since ${clockText(at.silentSince)}`);
  $("banner").title = at.cause;
  $("banner").hidden = !silent;
  document.body.classList.toggle("away", silent);
  showCountdown();
}

/** Only where it differs, so that a screen reader says what is new and a selection stays. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showState() {
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

function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
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

/** GPUs of a supply by pool: ready, starting and draining workers hold them. */
const gpusHeld = pools =>
  at.state.settings.pools.reduce(
    (sum, {name, gpus_per_worker: gpus}) =>
      sum + (pools[name] ? gpus * (pools[name].ready + pools[name].starting + pools[name].terminating) : 0),
    0,
  );

/** Unix time by the planner's clock, ms. */
const plannerWall = () => Date.parse(at.state.clock.time) + performance.now() - at.gotAt;

function showCountdown() {
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

// -- series -----------------------------------------------------------------------------------------------------------

/** Place of the first row at or after a time. */
function firstAt(ms) {
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
function view() {
  if (at.zoom) return at.zoom;
  const {settings} = at.state,
    now = Math.max(plannerWall(), at.rows.at(-1)?.t ?? 0);
  const from = Math.max(now - 1000 * at.spanS, Math.min(at.rows[0]?.t ?? now, now - 60_000));
  const ahead = (1000 * (settings.lead_time_s + 2 * settings.interval_s)) / speedUp();
  return [from, now + Math.min(ahead, 0.12 * (now - from))];
}

/** Rows in view, in groups of equal planner time where they are more than a picture can show; null is a gap. */
function groupsIn([from, to]) {
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
const most = values => Math.max(...values);

/** The groups as one array per quantity, null where unknown; shared by all pictures. */
function columns({groups, width}) {
  const pick = (field, reduce) => groups.map(rows => rows && over(rows, field, reduce));
  const gapAt = i => (groups[i - 1].at(-1).t + groups[i + 1][0].t) / 2;
  const t = groups.map((rows, i) => (rows ? rows[rows.length >> 1].t : gapAt(i)));
  const ahead = groups.map((rows, i) =>
    rows
      ? t[i] + (1000 * (over(rows, row => row.forecast && row.forecast.for_s - row.at_s, mean) ?? 0)) / speedUp()
      : t[i],
  );
  // Of a group the row with most workers stands for all: peaks are what GPUs are paid for.
  const fullest = groups.map(
    rows => rows && rows.reduce((best, row) => (gpusHeld(row.pools) > gpusHeld(best.pools) ? row : best)),
  );
  return {
    t,
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
function periods(rows, [from, to]) {
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

// -- pictures ---------------------------------------------------------------------------------------------------------

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const escaped = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
/** Plotly takes a date without a zone as it stands, so that it must be shifted to be local. */
const local = ms => ms - 60_000 * new Date(ms).getTimezoneOffset();
const unlocal = ms => ms + 60_000 * new Date(ms).getTimezoneOffset();
const faded = (hex, alpha) =>
  hex +
  Math.round(255 * alpha)
    .toString(16)
    .padStart(2, "0");

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

const line = (name, x, y, tone, extra = {}) => ({
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
const level = (name, y, shown, extra = {}) =>
  line(name, shown, [y, y], colour("ink"), {
    hoverinfo: "skip",
    hovertemplate: undefined,
    ...extra,
    line: {width: 1.3, dash: "dash"},
  });

/** Counts that hold from one tick to the next, as bars; equal neighbours are one. `values(row)` null is a gap. */
function steps(c, values) {
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

const PICTURES = {
  load(c) {
    const polygon = {x: [], y: []};
    let run = [];
    const close = () => {
      // there and back again, one closed shape per stretch without a gap
      for (const i of run) {
        polygon.x.push(c.ahead[i]);
        polygon.y.push(c.high[i]);
      }
      for (const i of run.toReversed()) {
        polygon.x.push(c.ahead[i]);
        polygon.y.push(c.median[i]);
      }
      if (run.length) {
        polygon.x.push(c.ahead[run[0]]);
        polygon.y.push(null);
      }
      run = [];
    };
    c.ahead.forEach((_, i) => {
      if (c.median[i] === null || c.high[i] === null) close();
      else run.push(i);
    });
    close();
    const quantile = at.rows.findLast(row => row.forecast)?.forecast.high_level;
    const upTo = quantile === undefined ? "forecast, high" : `forecast, ${+quantile.toPrecision(3)} quantile`;
    return {
      height: 330,
      y: ["requests per second"],
      data: [
        line(upTo, polygon.x, polygon.y, colour("blue"), {
          fill: "toself",
          fillcolor: faded(colour("blue"), 0.22),
          line: {width: 0},
          hoverinfo: "skip",
          hovertemplate: undefined,
        }),
        line(upTo, c.ahead, c.high, faded(colour("blue"), 0.45), {line: {width: 0.8}, showlegend: false}),
        line("forecast, median", c.ahead, c.median, colour("blue")),
        line("sized for (backlog included)", c.ahead, c.sized, colour("orange"), {
          line: {width: 1.6, dash: "dash", shape: "hvh"},
        }),
        line("observed arrivals", c.t, c.arrivals, colour("ink"), {line: {width: 1.4}}),
      ],
    };
  },
  workers(c) {
    const pools = at.state.settings.pools,
      tops = [];
    const data = pools.flatMap(({name}, k) => {
      const {bar, path, highest} = steps(
        c,
        row =>
          row.pools[name] && [
            row.pools[name].ready,
            row.pools[name].starting,
            row.pools[name].terminating,
            row.plan[name] ?? row.pools[name].desired,
          ],
      );
      tops.push(1.15 * highest);
      const own = group => ({yaxis: `y${k ? k + 1 : ""}`, legendgroup: group, showlegend: k === 0});
      return [
        bar("ready", 0, faded(colour("blue"), 0.7), own("ready")),
        bar("starting", 1, colour("orange"), own("starting")),
        bar("draining", 2, faded(colour("grey"), 0.75), own("draining")),
        path("plan", 3, own("plan")),
      ];
    });
    return {
      height: 90 + 140 * Math.max(pools.length, 1),
      y: pools.map(pool => `${pool.name} workers`),
      data,
      tops,
      whole: true,
    };
  },
  latency(c, shown) {
    const {sla} = at.state.settings;
    const row = (name, values, limit, k) => [
      line(name, c.t, values, colour(k ? "green" : "blue"), {yaxis: `y${k ? 2 : ""}`, hovertemplate: "%{y:,.1f} ms"}),
      level("SLA", limit, shown, {yaxis: `y${k ? 2 : ""}`, showlegend: k === 0, legendgroup: "SLA"}),
    ];
    const logs = [
      [c.ttft, sla.ttft_ms],
      [c.itl, sla.itl_ms],
    ].map(([values, limit]) => (most([0, ...values.filter(v => v !== null)]) > 4 * limit ? limit : 0));
    return {
      height: 370,
      y: ["TTFT (ms)", "ITL (ms)"],
      logs,
      data: [...row("TTFT", c.ttft, sla.ttft_ms, 0), ...row("ITL", c.itl, sla.itl_ms, 1)],
    };
  },
  attainment(c, shown) {
    const target = at.state.settings.sla.attainment,
      low = Math.min(target, ...c.attainment.filter(v => v !== null));
    const pad = Math.max(0.08 * (1 - low), 0.01);
    return {
      height: 290,
      y: ["requests that attain"],
      range: [low - pad, 1 + pad / 2],
      percent: true,
      data: [
        line("attained", c.t, c.attainment, colour("blue"), {hovertemplate: "%{y:.1%}"}),
        level(`target ${wanted(target)}`, target, shown),
      ],
    };
  },
  gpus(c, shown) {
    const {pools, max_gpus: budget} = at.state.settings,
      tones = ["blue", "green", "pink", "sky"];
    const {bar, path, highest} = steps(
      c,
      row =>
        pools.every(pool => row.pools[pool.name]) && [
          ...pools.map(
            ({name, gpus_per_worker: gpus}) =>
              gpus * (row.pools[name].ready + row.pools[name].starting + row.pools[name].terminating),
          ),
          pools.reduce(
            (sum, {name, gpus_per_worker: gpus}) => sum + gpus * (row.plan[name] ?? row.pools[name].desired),
            0,
          ),
          gpusHeld(row.pools),
        ],
    );
    // A budget far above would flatten what is held; it is drawn where it matters, and its number always told.
    const near = budget <= 3 * highest;
    return {
      height: 290,
      y: ["GPUs"],
      whole: true,
      tops: [1.12 * (near ? Math.max(budget, highest) : highest)],
      data: [
        ...pools.map((pool, k) => bar(escaped(pool.name), k, faded(colour(tones[k % tones.length]), 0.75))),
        path("plan", pools.length),
        level(`budget ${budget}${near ? "" : " (above the picture)"}`, near ? budget : null, shown),
      ],
    };
  },
};

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

function layoutOf(picture, shown, bands, chart) {
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

const visible = new Set(),
  stale = new Set();
let shared = null,
  queued = false;

/** Draw the pictures that are on the screen, soon and once; the others when they come into view. */
function draw() {
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
    if (nearest) openPanel(nearest.id, chart);
  });
}

// -- decisions --------------------------------------------------------------------------------------------------------

let listed = LISTED;
const shownRows = () =>
  $("changes-only").checked ? at.rows.filter(row => moves(row).length || row.level !== "model") : at.rows;

/** Bring the list up to date; entries that stay are not touched, so that focus and place stay. */
function showList() {
  const rows = shownRows(),
    wantedRows = rows.slice(-listed).reverse(),
    list = $("list");
  const keep = new Map([...list.children].map(item => [+item.dataset.id, item]));
  let place = list.firstElementChild;
  for (const row of wantedRows) {
    const item = keep.get(row.id) ?? listItem(row);
    keep.delete(row.id);
    if (item === place) place = place.nextElementSibling;
    else list.insertBefore(item, place);
  }
  for (const item of keep.values()) item.remove();
  for (const item of list.children)
    item.firstElementChild.setAttribute("aria-pressed", String(+item.dataset.id === at.selected));
  $("none").hidden = wantedRows.length > 0;
  setText($("none"), at.rows.length ? "No decision changed a pool." : "No decision yet.");
  $("more").hidden = rows.length <= listed;
  setText($("more"), `show more of ${rows.length.toLocaleString("en")}`);
}

/** What a decision changes, in elements. */
function changeParts(row) {
  if (!Object.keys(row.plan).length) return [made("span", "move", "nothing is asked for")];
  const changed = moves(row);
  if (!changed.length)
    return [
      made(
        "span",
        "move",
        Object.entries(row.plan)
          .map(([name, count]) => `${name} ${count}`)
          .join(", "),
      ),
    ];
  return changed.map(([name, before, after]) => {
    const move = made("span", "move", `${name} `);
    move.append(made("b", after > before ? "up" : "down", `${before} → ${after} ${after > before ? "▲" : "▼"}`));
    return move;
  });
}

function listItem(row) {
  const item = made("li"),
    button = made("button", moves(row).length ? "moved" : ""),
    why = made("span");
  item.dataset.id = row.id;
  button.type = "button";
  if (row.level !== "model") why.append(made("span", "level", levelText(row.level)));
  if (!row.sla_reachable) why.append(made("span", "level", "SLA out of reach"));
  for (const reason of row.reasons) {
    if (/\s/.test(reason)) why.append(made("span", "", `${reason} `));
    else if (!/(^no_change$|:scale_(up|down)$)/.test(reason)) why.append(made("code", "", reason));
  }
  for (const [pool, done] of Object.entries(row.outcome ?? {}))
    if (/^(failed|not applied|standby)/.test(done))
      why.append(made("span", "level", pool === "*" ? done : `${pool}: ${done}`));
  const change = made("span");
  change.append(...changeParts(row));
  button.append(made("span", "when", whenText(row)), change, why);
  button.addEventListener("click", () => openPanel(row.id, button));
  item.append(button);
  return item;
}

// -- the panel --------------------------------------------------------------------------------------------------------

async function openPanel(id, opener = null) {
  const row = at.rows.find(one => one.id === id);
  if (!row) return;
  if (opener) at.opener = opener;
  at.selected = id;
  const panel = $("panel"),
    first = panel.hidden;
  panel.hidden = false;
  if (first) panel.focus();
  setText($("panel-title"), `Decision at ${whenText(row)}`);
  $("panel-change").replaceChildren(...changeParts(row));
  $("panel-record").href = `api/decisions/${id}`;
  showNeighbours();
  showList();
  draw();
  setText($("explanation"), "loading");
  let text;
  try {
    text = await ask(`api/decisions/${id}/explanation`, true);
  } catch (error) {
    text = `The explanation could not be had: ${error.message}`;
  }
  if (at.selected === id) setText($("explanation"), text.replace(/[ \t]+$/gm, ""));
}

function neighbour(step) {
  const rows = shownRows(),
    place = rows.findIndex(row => row.id === at.selected);
  if (place >= 0) return rows[place + step];
  return step < 0 ? rows.findLast(row => row.id < at.selected) : rows.find(row => row.id > at.selected);
}

function showNeighbours() {
  $("panel-older").disabled = !neighbour(-1);
  $("panel-newer").disabled = !neighbour(1);
}

function step(by) {
  const next = neighbour(by);
  if (next) openPanel(next.id);
}

function closePanel() {
  if ($("panel").hidden) return;
  $("panel").hidden = true;
  at.selected = null;
  showList();
  draw();
  if (at.opener?.isConnected) at.opener.focus({preventScroll: true});
}

// -- what people do ---------------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-span]"))
  button.addEventListener("click", () => {
    [at.spanS, at.zoom] = [+button.dataset.span, null];
    draw();
  });
$("live").addEventListener("click", () => {
  at.zoom = null;
  draw();
});
$("changes-only").addEventListener("change", () => {
  listed = LISTED;
  showList();
  if (at.selected !== null) showNeighbours();
});
$("more").addEventListener("click", () => {
  listed += 4 * LISTED;
  showList();
});
$("panel-close").addEventListener("click", closePanel);
$("panel-older").addEventListener("click", () => step(-1));
$("panel-newer").addEventListener("click", () => step(1));
addEventListener("keydown", event => {
  if (event.key === "Escape") closePanel();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(draw, 150);
});
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
setInterval(showCountdown, 500);
poll();
