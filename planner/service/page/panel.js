// The panel with a decision's explanation.

import {ask} from "./api.js";
import {draw} from "./charts.js";
import {changeParts, showList, shownRows} from "./decisions.js";
import {$, setText} from "./dom.js";
import {at} from "./state.js";
import {whenText} from "./words.js";

export async function openPanel(id, opener = null) {
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

export function showNeighbours() {
  $("panel-older").disabled = !neighbour(-1);
  $("panel-newer").disabled = !neighbour(1);
}

export function step(by) {
  const next = neighbour(by);
  if (next) openPanel(next.id);
}

export function closePanel() {
  if ($("panel").hidden) return;
  $("panel").hidden = true;
  at.selected = null;
  showList();
  draw();
  if (at.opener?.isConnected) at.opener.focus({preventScroll: true});
}
