"""Every alert has its entry in the runbook, and every entry its alert."""

from __future__ import annotations

import re

import pytest

from tests.manifests import ROOT, Object, alerts

RUNBOOK = ROOT / "docs" / "reference" / "alerts.md"


@pytest.mark.parametrize("alert", [*alerts()], ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_names_its_entry(alert: Object) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert ROOT / file == RUNBOOK
    assert anchor == alert["alert"].lower()


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    entries = re.split(r"^## ", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = {entry.split("\n", 1)[0].strip(): entry for entry in entries}
    assert set(named) == {alert["alert"] for alert in alerts()}
    for name, entry in named.items():
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in entry, f"{name} says nothing about {part}"
