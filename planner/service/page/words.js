// Figures, times and decisions in words.

import {at, speedUp} from "./state.js";

const two = n => String(n).padStart(2, "0");
export const clockText = ms => {
  const d = new Date(ms);
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map(two).join(":");
};
export const number = (value, digits = 1) =>
  value.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits});
export const latencyText = ms => number(ms, ms >= 100 ? 0 : 1);
export const levelText = level => level.replaceAll("_", " ");

/** A share with one decimal, rounded down: 94.99 % must not read as the 95 % that it misses. */
export const percent = share => `${number(Math.floor(share * 1000 + 1e-7) / 10)} %`;
/** A target as it was asked for, without zeros. */
export const wanted = share => `${+(100 * share).toPrecision(6)} %`;

export function spanText(seconds) {
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 2 * 86400 ? `${+(s / 3600).toFixed(1)} h` : `${+(s / 86400).toFixed(1)} days`;
}

/** Planner seconds since the history's start: +m:ss or +h:mm:ss; for the marks of an axis +1h23 from the first hour. */
export function elapsedText(plannerS, short = false) {
  const s = Math.round(Math.abs(plannerS - at.zeroS)),
    h = Math.floor(s / 3600);
  if (short && h) return `${plannerS < at.zeroS ? "-" : "+"}${h}h${two(Math.floor(s / 60) % 60)}`;
  return (
    (plannerS < at.zeroS ? "-" : "+") +
    (h ? `${h}:${two(Math.floor(s / 60) % 60)}` : Math.floor(s / 60)) +
    `:${two(s % 60)}`
  );
}

export const whenText = row => clockText(row.t) + (speedUp() === 1 ? "" : ` (${elapsedText(row.at_s)})`);

/** Pools whose count a decision changes, as [name, before, after]; an unknown present is no change. */
export const moves = row =>
  Object.entries(row.plan)
    .filter(([name, count]) => name in row.current && row.current[name] !== count)
    .map(([name, count]) => [name, row.current[name], count]);

/** A reason in words, not a code: those have spaces. */
export const spoken = reasons => reasons.filter(reason => /\s/.test(reason));
