"""The reference names every setting with its default, every metric and every path."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from planner.connectors.kubernetes import settings
from planner.service import config as module
from planner.service.config import ServiceConfig
from planner.service.load import load_config
from planner.service.metrics import _GAUGES
from tests.unit.service.conftest import Rigging

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
MODELS = [
    model
    for place in (module, settings)
    for model in vars(place).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == place.__name__
]


@pytest.mark.parametrize("model", [m for m in MODELS if m.model_fields])
def test_every_setting_is_in_the_reference_with_its_default(model: type[BaseModel]) -> None:
    rows = (REFERENCE / "planner-yaml.md").read_text().splitlines()
    for name, field in model.model_fields.items():
        found = [row.split("|")[2].strip() for row in rows if row.startswith(f"| `{name}` |")]
        assert found, f"{model.__name__}.{name} is not documented"
        if isinstance(field.default, float | int) and not isinstance(field.default, bool):
            assert f"{field.default:g}" in found, f"{name}: default differs"
        if isinstance(field.default, str | Path):
            assert f"`{field.default}`" in found, f"{name}: default differs"


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    text = (REFERENCE / "planner-yaml.md").read_text().split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "planner.yaml"
    path.write_text(text)
    assert yaml.safe_load(text)["graph"] == load_config(path).graph
    assert isinstance(load_config(path), ServiceConfig)


def test_every_metric_is_in_the_reference(rig: Rigging) -> None:
    text = (REFERENCE / "service.md").read_text()
    shown = {
        row.split()[2].removeprefix("sla_planner_")
        for row in rig().ticks(2).loop.metrics.text().decode().splitlines()
        if row.startswith("# TYPE sla_planner_") and "_created" not in row
    }
    for name in shown | set(_GAUGES):
        assert f"`{name}" in text, f"{name} is not documented"
