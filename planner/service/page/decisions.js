// The list of decisions.

import {$, choose, made, setText} from "./dom.js";
import {at} from "./state.js";
import {levelText, moves, whenText} from "./words.js";

//: Decisions that the list shows at once.
const LISTED = 100;

let listed = LISTED;
export const shownRows = () =>
  $("changes-only").checked ? at.rows.filter(row => moves(row).length || row.level !== "model") : at.rows;

/** Bring the list up to date; entries that stay are not touched, so that focus and place stay. */
export function showList() {
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
export function changeParts(row) {
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
  button.addEventListener("click", () => choose(row.id, button));
  item.append(button);
  return item;
}

export function listAnew() {
  listed = LISTED;
  showList();
}

export function listMore() {
  listed += 4 * LISTED;
  showList();
}
