"""The reference names what there is: every setting and every option of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from planner.cli import app
from planner.core.backlog import BacklogSettings
from planner.core.error_budget import ErrorBudgetSettings
from planner.core.forecast import ForecastSettings
from planner.core.residual import ResidualSettings
from planner.core.settings import Tuning
from planner.core.stabilise import Behaviour, Direction, RatePolicy
from planner.core.surge import SurgeSettings
from planner.whatif.policies.ablation import PARTS

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    "model",
    [
        Tuning,
        ErrorBudgetSettings,
        Behaviour,
        Direction,
        RatePolicy,
        ForecastSettings,
        SurgeSettings,
        BacklogSettings,
        ResidualSettings,
    ],
)
def test_every_setting_is_in_the_reference_with_its_default(model: type[BaseModel]) -> None:
    text = (REFERENCE / "configuration.md").read_text()
    for name, field in model.model_fields.items():
        rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert rows, f"{model.__name__}.{name} is not documented"
        if isinstance(field.default, float | int):
            assert any(row.split("|")[2].strip() == f"{field.default:g}" for row in rows), f"{name}: default differs"


@pytest.mark.parametrize("verb", ["demo", "whatif", "run", "validate", "explain", "replay", "graph up", "graph scale"])
def test_every_option_is_in_the_reference(verb: str) -> None:
    text = (REFERENCE / "command-line.md").read_text()
    command = typer.main.get_command(app)
    for word in verb.split():
        command = command.commands[word]
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    for option in options:
        assert option == "--help" or f"{option} " in text or f"{option}`" in text, f"{option} is not documented"


def test_every_verb_is_in_the_reference() -> None:
    text = (REFERENCE / "command-line.md").read_text()
    commands = typer.main.get_command(app).commands
    for verb in commands:
        assert f"planner {verb}" in text
    for verb in commands["graph"].commands:
        assert f"`{verb} FILE" in text


def test_every_page_is_in_the_index() -> None:
    docs = REFERENCE.parent
    index = (docs / "index.md").read_text()
    for page in docs.rglob("*.md"):
        assert page.name == "index.md" or f"({page.relative_to(docs)})" in index, f"{page} is not in the index"


def test_every_part_that_can_be_taken_away_is_in_the_reference() -> None:
    text = (REFERENCE / "ablation.md").read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert named == list(PARTS)
