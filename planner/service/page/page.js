// The live page: asks the API for the planner's state and for decisions that are new, and shows both.
// Text from the API reaches the page through textContent alone; in pictures, where plotly reads markup, escaped.

import {ask, pull} from "./api.js";
import {draw, watch} from "./charts.js";
import {listAnew, listMore, showList} from "./decisions.js";
import {$} from "./dom.js";
import {closePanel, openPanel, showNeighbours, step} from "./panel.js";
import {at, speedUp} from "./state.js";
import {showBanner, showCountdown, showState} from "./tiles.js";

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
  listAnew();
  if (at.selected !== null) showNeighbours();
});
$("more").addEventListener("click", listMore);
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
// A decision that is chosen, in the list or in a picture.
document.addEventListener("decision", event => openPanel(event.detail, event.target));
watch();
setInterval(showCountdown, 500);
poll();
