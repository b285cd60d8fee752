// The pictures: what each draws, by the name of its element.

import {most} from "./series.js";
import {at, gpusHeld} from "./state.js";
import {colour, escaped, faded, level, line, steps} from "./traces.js";
import {wanted} from "./words.js";

export const PICTURES = {
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
        line("sized for (surge included)", c.ahead, c.sized, colour("orange"), {
          line: {width: 1.6, dash: "dash", shape: "hvh"},
        }),
        line("observed arrivals", c.arrived, c.arrivals, colour("ink"), {line: {width: 1.4}}),
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
