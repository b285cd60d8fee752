"""The live page in a real browser, against a server that speaks the planner's API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.page import histories
from tests.integration.page.conftest import Page, Server

Serve = Callable[..., Server]

HOLD = "arrivals unknown: Prometheus at http://127.0.0.1:9090 refused the connection"

PLAN = {"prefill": 2, "decode": 3}


def past(n: int, **other: Any) -> list[histories.Json]:
    """Decisions at ticks of 3 s, as the served settings say, until now."""
    interval, histories_interval = 3.0, histories.INTERVAL_S
    rows = list(histories.decisions(n, time.time(), **other))
    end = rows[-1]
    for row in rows:
        moved = end["at_s"] - (end["at_s"] - row["at_s"]) * interval / histories_interval
        again = histories.decision(
            moved, plan={}, current={}, rate=None, forecast=None, ttft_ms=None, itl_ms=None, attainment=None
        )
        row |= {name: again[name] for name in ("id", "at_s", "time")}
    return rows


def following(rows: list[histories.Json], **other: Any) -> histories.Json:
    """One more decision, 3 s after the last."""
    usual: dict[str, Any] = {
        "plan": PLAN, "current": PLAN, "rate": 33.3, "forecast": (34.0, 41.0),
        "ttft_ms": 123.4, "itl_ms": 7.89, "attainment": 0.97,
    }  # fmt: skip
    return histories.decision(rows[-1]["at_s"] + 3.0, **usual | other)


def degraded(rows: list[histories.Json], **other: Any) -> histories.Json:
    """One more decision, made without knowing anything of the load."""
    nothing = dict.fromkeys(("rate", "forecast", "ttft_ms", "itl_ms", "attainment"))
    return following(rows, level="hold", reasons=(HOLD,), **nothing | other)


def test_the_tiles_show_what_the_api_says(page: Page, serve: Serve) -> None:
    rows = past(60)
    rows.append(following(rows))
    server = serve(rows)
    page.open(server.url, len(rows))
    window = [row for row in rows if row["at_s"] > rows[-1]["at_s"] - 600]
    offered = sum(row["arrivals_rps"] for row in window)
    share = sum(row["arrivals_rps"] * row["attainment"] for row in window) / offered
    shown = float(page.text("#tile-attainment .big").removesuffix(" %"))
    assert share * 100 - 0.1 < shown <= share * 100
    assert page.text("#tile-rate .big") == "33.3 requests/s"
    assert page.text("#tile-rate .under") == f"sized for {34.0 * 1.08:.1f}/s"
    assert page.text("#tile-ttft .big") == "123 ms"
    assert page.text("#tile-ttft .under") == "✓ within 200 ms"
    assert page.text("#tile-itl .big") == "7.9 ms"
    assert page.text("#tile-gpus .big") == "8 of 24"
    assert page.text("#tile-gpus .under") == "prefill 2, decode 3"
    assert page.text("#tile-lease") == "Lease\nthis planner\nplanner-a"
    assert page.text("#tile-tick .under") == "every 3 s"
    assert page.text("#verdict") == f"✓ Meeting the SLA: {shown} % of requests in the last 3 min, target 95 %"
    assert page.text("#graph") == "llama-chat"
    assert "meta-llama/Llama-3.1-8B-Instruct" in page.text("#about")
    assert page.complaints() == []


def test_a_share_just_below_the_target_is_a_miss_and_reads_as_one(page: Page, serve: Serve) -> None:
    rows = [following(past(1), attainment=0.9499)]
    server = serve(rows)
    page.open(server.url, 1)
    assert page.text("#verdict") == "✗ Missing the SLA: 94.9 % of requests in the last 3 s, target 95 %"
    assert page.text("#tile-attainment .big") == "94.9 %"


def test_a_new_decision_appears_within_two_polls(page: Page, serve: Serve) -> None:
    rows = past(20)
    server = serve(rows)
    page.open(server.url, 20)
    more = following(rows, plan={"prefill": 4, "decode": 3}, ttft_ms=345.6)
    polls = server.fake.asked.count("/api/state")
    server.change(lambda fake: fake.rows.append(more))
    page.until("the new tile", lambda: page.text("#tile-ttft .big") == "346 ms")
    # Up to the first poll that asked for what follows it, for the browser may be slow to say what it shows.
    asked = [*server.fake.asked]
    known = next((i for i, path in enumerate(asked) if f"since={more['id']}&" in path), None)
    until = asked.count("/api/state") if known is None else asked[:known].count("/api/state") - 1
    assert until <= polls + 2
    assert page.text("#list li").splitlines()[1:] == ["prefill 2 → 4 ▲", "sized_for_itl"]
    assert page.text("#tile-ttft .under") == "✗ over 200 ms"
    last = "document.querySelector('#chart-latency').data.find(t => t.name === 'TTFT').y.at(-1)"
    assert page.until_script(f"{last} === 345.6 && {last}") == 345.6
    # What is known is not asked for again.
    asked = [path for path in server.fake.asked if "since" in path]
    assert asked[0] == "/api/decisions?since=0&limit=1000"
    assert set(asked[1:]) <= {f"/api/decisions?since={row['id']}&limit=1000" for row in rows[-2:]}


def test_a_decision_in_the_list_opens_its_explanation(page: Page, serve: Serve) -> None:
    rows = past(30)
    server = serve(rows)
    told = "plan     prefill 1 -> 2\n┏━━ <b>not markup</b>"
    server.change(lambda fake: fake.explanations.update({rows[-3]["id"]: told}))
    page.open(server.url, 30)
    button = page.driver.find_elements("css selector", "#list button")[2]
    button.send_keys("\n")  # reachable without a mouse
    page.until("the explanation", lambda: page.text("#explanation") == told)
    assert page.run("return document.activeElement.id") == "panel"
    assert page.run("return document.querySelector('#panel-record').href").endswith(f"/api/decisions/{rows[-3]['id']}")
    page.run("document.querySelector('#panel-newer').click()")
    page.until("the next one", lambda: rows[-2]["time"] in page.text("#explanation"))
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    assert page.run("return document.querySelector('#panel').hidden")
    assert page.run("return document.activeElement === arguments[0]", button)


def test_a_point_of_a_picture_opens_the_nearest_decision(page: Page, serve: Serve) -> None:
    from selenium.webdriver import ActionChains  # noqa: PLC0415 - skipped without it

    rows = past(40)
    server = serve(rows)
    page.open(server.url, 40)
    area = page.driver.find_element("css selector", "#chart-load .nsewdrag")
    place = page.run(
        "const axis = document.querySelector('#chart-load')._fullLayout.xaxis; "
        "return axis.c2p(arguments[0] - 60000 * new Date(arguments[0]).getTimezoneOffset()) - axis._length / 2",
        rows[25]["at_s"] * 1000,
    )
    ActionChains(page.driver).move_to_element_with_offset(area, round(place), 0).pause(0.4).click().perform()
    page.until("an explanation", lambda: rows[25]["time"] in page.text("#explanation"))


def test_an_explanation_that_is_gone_is_said(page: Page, serve: Serve) -> None:
    rows = past(3)
    server = serve(rows)
    page.open(server.url, 3)
    server.change(lambda fake: fake.rows.clear())
    page.run("document.querySelector('#list button').click()")
    page.until("the reason", lambda: "no such decision" in page.text("#explanation"))


def test_a_degraded_level_is_named_with_its_reason_and_shaded(page: Page, serve: Serve) -> None:
    rows = past(40)
    for _ in range(15):
        rows.append(degraded(rows))
    server = serve(rows)
    page.open(server.url, len(rows))
    assert page.text("#verdict") == f"! HOLD: {HOLD}; nothing is scaled down"
    assert page.text("#list .level") == "hold"
    shapes = page.run("return document.querySelector('#chart-load').layout.shapes.map(s => [s.name, s.label?.text])")
    assert shapes == [["hold", "hold"]]
    span = page.run(
        "const s = document.querySelector('#chart-load').layout.shapes[0]; return (s.x1 - s.x0) / 1000",
    )
    assert span == pytest.approx(15 * 3.0, abs=0.1)


def test_unknown_is_said_with_its_reason_and_never_drawn_as_zero(page: Page, serve: Serve) -> None:
    rows = past(40)
    for _ in range(3):
        rows.append(degraded(rows, pools={}, plan={}, current={}))
    server = serve(rows)
    page.open(server.url, len(rows))
    assert page.text("#tile-rate .big") == f"unknown: {HOLD}"
    assert page.text("#tile-ttft .big") == "unknown: no request completed"
    assert page.text("#tile-gpus .big") == "unknown: the supervisor does not answer"
    server.change(lambda fake: fake.replaced.update(lease=None, errors={"lease": fault("the supervisor is gone")}))
    page.until("the lease", lambda: page.text("#tile-lease .big") == "unknown: the supervisor is gone")
    page.look(width=1440, dark=False, height=2400)  # all pictures are drawn
    for chart, name in (("load", "observed arrivals"), ("latency", "TTFT"), ("attainment", "attained")):
        drawn = page.until_script(f"document.querySelector('#chart-{chart}').data?.find(t => t.name === '{name}').y")
        assert drawn[-3:] == [None] * 3, chart
        assert None not in drawn[:-3]
    page.until_script("document.querySelectorAll('#chart-gpus .bars').length > 0")
    bars = page.run("return document.querySelector('#chart-gpus').data.filter(t => t.type === 'bar')")
    end = max(x + width for bar in bars for x, width in zip(bar["x"], bar["width"], strict=True))
    offset = page.run("return 60000 * new Date().getTimezoneOffset()")
    assert (end + offset) / 1000 == pytest.approx(rows[-4]["at_s"] + 3.0, abs=0.1)


def test_the_outage_of_a_server_is_told_and_ends(page: Page, serve: Serve) -> None:
    rows = past(10)
    server = serve(rows)
    page.open(server.url, 10)
    before = time.time()
    server.stop()
    page.until("the banner", lambda: page.text("#banner").startswith("planner does not answer since "))
    since = page.text("#banner").split()[-1]
    local = page.run("return new Date(arguments[0]).toTimeString().slice(0, 8)", 1000 * before)
    assert seconds(since) == pytest.approx(seconds(local), abs=5)
    page.until("no countdown", lambda: page.text("#tile-tick .big") == "unknown: planner does not answer")
    rows.append(following(rows, itl_ms=11.5))
    server.start()
    page.until("recovery", lambda: page.run("return document.querySelector('#banner').hidden"))
    page.until("the tick meanwhile", lambda: page.text("#tile-itl .big") == "11.5 ms")


def test_an_answer_that_is_an_error_is_an_outage_too(page: Page, serve: Serve) -> None:
    server = serve(past(5))
    server.change(lambda fake: setattr(fake, "broken", True))
    page.driver.get(server.url)
    page.until("the banner", lambda: page.text("#banner").startswith("planner does not answer since "))
    assert "503" in page.run("return document.querySelector('#banner').title")
    server.change(lambda fake: setattr(fake, "broken", False))
    page.until("recovery", lambda: page.text("#graph") == "llama-chat")


def test_a_standby_an_unreachable_sla_and_a_failing_stage_are_told(page: Page, serve: Serve) -> None:
    rows = past(10)
    nearest = {"ttft_ms": 260.4, "itl_ms": 12.34, "attainment": 0.95}
    rows.append(following(rows, sla_reachable=False, nearest=nearest))
    server = serve(rows)
    lease = {"holder": "planner-b", "held": False, "expires_in_s": 20.0}
    errors = {"journal": fault("No space left on device: /data/journal"), "read": fault("the last war", active=False)}
    server.change(lambda fake: fake.replaced.update(lease=lease, errors=errors))
    page.open(server.url, len(rows))
    notes = page.text("#notes")
    assert "No number of workers meets this SLA; the nearest that can be met: TTFT 260 ms, ITL 12.3 ms." in notes
    assert "Standby: planner-b holds the lease; decisions are recorded here, not carried out." in notes
    assert "(12 in a row): No space left on device: /data/journal" in notes
    assert "the last war" not in notes
    assert page.text("#tile-lease") == "Lease\nplanner-b\nthis planner stands by"


def test_before_the_first_decision_nothing_is_made_up(page: Page, serve: Serve) -> None:
    server = serve([])
    page.driver.get(server.url)
    page.until("the page", lambda: page.text("#verdict") == "Waiting for the first decision")
    assert page.text("#tile-rate .big") == "unknown: no tick yet"
    assert page.text("#none") == "No decision yet."
    assert page.complaints() == []


def test_names_are_text_whatever_they_hold(page: Page, serve: Serve) -> None:
    evil = '<img src=x onerror="window.hacked=1">'
    rows = past(20)
    for row in rows:
        for part in ("plan", "current", "wanted", "pools"):
            row[part] = {evil if name == "decode" else name: value for name, value in row[part].items()}
        row["reasons"] = [f"{evil}:down_window", f"because of {evil}"]
    rows[-1]["plan"][evil] += 1
    server = serve(rows)
    settings = server.fake.replaced["settings"]
    settings["pools"][1]["name"] = evil  # type: ignore[index]
    server.change(lambda fake: fake.replaced.update(graph=evil, model=evil, identity=evil, settings=settings))
    page.look(width=1440, dark=False, height=2400)  # all pictures are drawn
    page.open(server.url, 20)
    page.run("document.querySelector('#list button').click()")
    page.until_script("document.querySelectorAll('#chart-workers .bars').length > 0")
    page.until_script("document.querySelectorAll('#chart-gpus .bars').length > 0")
    assert page.run("return [window.hacked ?? null, document.querySelectorAll('img').length]") == [None, 0]
    assert evil in page.text("#list li")
    assert page.text("#graph") == evil
    assert evil in page.run("return document.querySelector('#chart-workers .y2title').textContent")
    assert page.complaints() == []


def test_changes_only(page: Page, serve: Serve) -> None:
    rows = past(200)
    moved = [row for row in rows if any(row["current"][pool] != n for pool, n in row["plan"].items())]
    assert 0 < len(moved) < 100
    server = serve(rows)
    page.open(server.url, 200)
    assert page.run("return document.querySelectorAll('#list li').length") == 100
    page.run("document.querySelector('#changes-only').click()")
    ids = page.run("return [...document.querySelectorAll('#list li')].map(li => +li.dataset.id)")
    assert ids == [row["id"] for row in reversed(moved)]


def test_a_zoom_stays_while_ticks_come_and_ends_on_demand(page: Page, serve: Serve) -> None:
    from selenium.webdriver import ActionChains  # noqa: PLC0415 - skipped without it

    rows = past(100)
    server = serve(rows)
    page.open(server.url, 100)
    area = page.driver.find_element("css selector", "#chart-load .nsewdrag")
    drag = ActionChains(page.driver).move_to_element_with_offset(area, -300, 0).click_and_hold()
    drag.move_by_offset(150, 0).pause(0.1).move_by_offset(150, 0).pause(0.1).release().perform()
    page.until_script("!document.querySelector('#live').hidden")
    ranges = "['load', 'workers'].map(n => document.querySelector('#chart-' + n).layout.xaxis.range.map(Number))"
    both = page.until("one zoom for all", lambda: (r := page.run(f"return {ranges}")) and r[0] == r[1] and r)
    server.change(lambda fake: fake.rows.append(following(rows)))
    page.until("the tick", lambda: "101 decisions" in page.text("#shown"))
    assert page.run(f"return {ranges}") == both
    page.run("document.querySelector('#live').click()")
    page.until("the present", lambda: page.run(f"return {ranges}")[0] != both[0])
    assert page.run("return document.querySelector('#live').hidden")


def test_decisions_that_the_planner_took_back_go(page: Page, serve: Serve) -> None:
    rows = past(20)
    server = serve(list(rows))
    page.open(server.url, 20)
    server.change(lambda fake: fake.rows.__delitem__(slice(15, None)))
    page.until("15 decisions", lambda: "15 decisions" in page.text("#shown"))
    assert page.run("return document.querySelectorAll('#list li').length") == 15


def test_another_speed_of_time_is_told_and_both_clocks_are_shown(page: Page, serve: Serve) -> None:
    rows = list(histories.decisions(100, time.time(), speed_up=5.0))
    server = serve(rows, interval_s=histories.INTERVAL_S, speed_up=5.0)
    page.open(server.url, 100)
    assert page.text("#speed").startswith("5x: simulated time runs 5 times as fast as the clock.")
    assert page.text("#list .when").endswith("(+24:45)")
    assert page.text("#tile-tick .under") == "every 15 s, 3 s here"
    texts = page.run("return document.querySelector('#chart-load').layout.xaxis.ticktext")
    assert all("<br>" in text for text in texts)


def test_rates_are_drawn_at_the_middle_of_their_intervals(page: Page, serve: Serve) -> None:
    rows = list(histories.decisions(100, time.time(), speed_up=5.0))
    server = serve(rows, interval_s=histories.INTERVAL_S, speed_up=5.0)
    page.open(server.url, 100)
    drawn_ms = page.run(
        "return Object.fromEntries(document.querySelector('#chart-load').data.map("
        "trace => [trace.name, trace.x.at(-1) + 60000 * new Date().getTimezoneOffset()]))"
    )
    # Planner seconds are a fifth on the wall: observed are 15 up to the tick, forecast 15 up to 60 after it.
    tick_ms = 1000 * rows[-1]["at_s"] / 5
    assert drawn_ms["observed arrivals"] == pytest.approx(tick_ms - 1_500, abs=2)
    for name in ("forecast, median", "sized for (surge included)"):
        assert drawn_ms[name] == pytest.approx(tick_ms + 12_000 - 1_500, abs=2), name


def test_a_whole_day_is_loaded_in_pages_and_drawn_thinned(page: Page, serve: Serve) -> None:
    rows = list(histories.decisions(5760, time.time()))
    server = serve(rows, interval_s=histories.INTERVAL_S)
    page.look(width=1440, dark=False, height=2400)  # all pictures are drawn
    began = time.monotonic()
    page.open(server.url, 5760)
    loaded_s = time.monotonic() - began
    page.run("document.querySelector('[data-span=\"86400\"]').click()")
    page.until("the day", lambda: "A point stands for 3 min" in page.text("#shown"))
    points = page.run(
        "return [...document.querySelectorAll('.chart')].flatMap(c => (c.data ?? []).map(t => t.x.length))"
    )
    assert 0 < max(points) <= 1100  # the quantile's band goes there and back
    assert page.run("return document.querySelectorAll('#list li').length") == 100
    assert server.fake.asked.count("/api/decisions?since=0&limit=1000") == 1
    assert sum("since" in path for path in server.fake.asked[:10]) >= 6
    redraw_ms = page.run(
        "return [...document.querySelectorAll('.chart')].map(n => { const began = performance.now(); "
        "Plotly.react(n, [...n.data], {...n.layout}, {}); return Math.round(performance.now() - began); })"
    )
    heap = page.run("return performance.memory.usedJSHeapSize / 2 ** 20")
    print(f"\n5,760 decisions: loaded in {loaded_s:.1f} s, pictures redrawn in {redraw_ms} ms, {heap:.0f} MiB of heap")
    assert page.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440], ids=["narrow", "wide"])
def test_it_fits_and_reads_well(page: Page, serve: Serve, width: int, dark: bool) -> None:
    rows = past(60)
    rows.append(degraded(rows))
    rows.append(following(rows, plan={"prefill": 3, "decode": 2}, ttft_ms=300.0, sla_reachable=False))
    server = serve(rows)
    page.look(width=width, dark=dark)
    page.open(server.url, len(rows))
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    too_wide = page.run(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && "
        "e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []
    page.run("document.querySelector('#list button').click()")
    page.until("the explanation", lambda: "plan" in page.text("#explanation"))
    assert page.run("return document.querySelector('#panel').getBoundingClientRect().width <= innerWidth")
    found = page.run(CONTRASTS)
    assert len(found) > 40
    assert [one for one in found if one["ratio"] < 4.5] == []
    dark_page = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (json.loads(dark_page.replace("rgb(", "[").replace(")", "]"))[0] < 60) is dark


#: Contrast, by WCAG 2, of every element that holds visible text of its own.
CONTRASTS = """
const rgba = text => {
  const n = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number), unit = text.startsWith('color(') ? 255 : 1;
  return [n[0] * unit, n[1] * unit, n[2] * unit, n[3] ?? 1];
};
const luminance = c => {
  const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const below = element => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((under, c) => under.map((v, i) => v * (1 - c[3]) + c[i] * c[3]), [255, 255, 255]);
};
const found = [];
for (const e of document.querySelectorAll('main *, #panel *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.matches(':disabled')) continue;
  const style = getComputedStyle(e), svg = e.closest('svg');
  const [ink, paper] = [rgba(svg ? style.fill : style.color), below(e)].map(luminance);
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  found.push({what: e.tagName + '.' + (e.className.baseVal ?? e.className), text: e.textContent.slice(0, 40), ratio});
}
return found;
"""


def fault(text: str, *, active: bool = True) -> histories.Json:
    """A stage's last failure, as the API gives it."""
    now = time.time()
    return {"text": text, "at_s": now, "since_s": now - 60, "in_a_row": 12, "active": active}


def seconds(clock: str) -> int:
    """Of a time of day."""
    hours, minutes, rest = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + rest
