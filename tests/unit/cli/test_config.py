"""The configuration's YAML: what it may say, and how what it may not say is reported."""

from pathlib import Path

import pytest

from planner.config import load_tuning
from planner.core.settings import Tuning
from profiler.errors import InputError
from profiler.yamlfile import MOST_NODES
from tests.unit.cli.conftest import Command, refused


def load(tmp_path: Path, content: str | bytes) -> Tuning:
    path = tmp_path / "tuning.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_tuning(path)


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing but a comment\n", "---\n", "{}", "null", b"\xef\xbb\xbf"])
def test_nothing_is_the_default(tmp_path: Path, content: str | bytes) -> None:
    assert load(tmp_path, content) == Tuning()


def test_what_is_named_counts_and_the_rest_keeps_its_default(tmp_path: Path) -> None:
    text = """
interval_s: 20
confidence: 0.9
forecast: {history_bins: 100, scored_steps: [1, 2]}
behaviour:
  up:
    policies:
      - {kind: percent, value: 50, period_s: 60}
"""
    tuning = load(tmp_path, text)
    assert (tuning.interval_s, tuning.confidence) == (20.0, 0.9)
    assert tuning.forecast.scored_steps == (1, 2)
    assert tuning.behaviour.up.policies[0].kind == "percent"
    assert tuning.behaviour.down == Tuning().behaviour.down
    assert tuning.sample_size == Tuning().sample_size


def test_aliases_and_merges_are_read(tmp_path: Path) -> None:
    text = "behaviour:\n  up: &calm {window_s: 90, tolerance: 0.1}\n  down:\n    <<: *calm\n    window_s: 60\n"
    behaviour = load(tmp_path, text).behaviour
    assert (behaviour.up.window_s, behaviour.down.window_s, behaviour.down.tolerance) == (90.0, 60.0, 0.1)


LAUGHS = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "line", "field", "said"),
    [
        ("confidence: 0.9\nintervall_s: 3\n", 2, "intervall_s", "did you mean 'interval_s'?"),
        ("forecast:\n  season: 3\n", 2, "forecast.season", "unknown field"),
        ("sla: {ttft_ms: 3}\n", 1, "sla", "unknown field"),
        ("\ninterval_s: soon\n", 2, "interval_s", "is 'soon'; expected a valid number"),
        ("interval_s: 0\n", 1, "interval_s", "is 0; expected greater than 0"),
        ("interval_s: [1]\n", 1, "interval_s", "is [1]"),
        ("interval_s:\n", 1, "interval_s", "is None"),
        ("interval_s: .nan\n", 1, "interval_s", "is nan; expected a finite number"),
        ("x: 1\ninterval_s: .inf\n", 2, "interval_s", "is inf; expected a finite number"),
        ("behaviour:\n  up:\n    window_s: -.inf\n", 3, "behaviour.up.window_s", "is -inf"),
        ("interval_s: yes\n", 1, "interval_s", "is True; expected a finite number"),
        ("behaviour: {up: {policies: [{kind: pods, value: 1, period_s: 5}]}}", 1, "behaviour.up.policies.0.kind", ""),
        ("behaviour:\n  up:\n    policies:\n    - kind: percent\n      value: 0\n      period_s: 1\n", 5,
         "behaviour.up.policies.0.value", "greater than 0"),
        ("forecast: 5\n", 1, "forecast", "is 5"),
        ("confidence: 0.6\ninterval_s: 5\nconfidence: 0.7\n", 3, "confidence", "is set twice, first in line 1"),
        ("forecast:\n  residuals: 50\n  residuals: 50\n", 3, "residuals", "is set twice, first in line 2"),
        ("- interval_s: 3\n", 1, None, "holds a list; expected a mapping"),
        ("interval_s", 1, None, "holds a str"),
        ("42", 1, None, "holds a int"),
        ("1: 2\n", 1, "1", ""),
        ("interval_s: 3\n  confidence: 4\n", 2, None, "is not YAML"),
        ("interval_s: [3\n", 2, None, "is not YAML"),
        ("a: 1\n---\nb: 2\n", 3, None, "holds a second document"),
        ("interval_s: *never\n", 1, None, "undefined alias"),
        ("[a, b]: 1\n", 1, None, "unhashable key"),
        ("interval_s: !!python/object/apply:os.system ['true']\n", 1, None, "is not YAML"),
        ("interval_s: !!timestamp x\n", None, None, "is not YAML that can be read"),
        ("interval_s: !!int ''\n", None, None, "is not YAML that can be read"),
        ("interval_s: !!bool x\n", None, None, "is not YAML that can be read"),
        ("interval_s: 2025-13-45\n", None, None, "is not YAML that can be read"),
        (b"interval_s: \x07\n", None, None, "special characters are not allowed"),
        (b"\xff\xfe\x00\x01", None, None, "is not text (byte 0)"),
        (b"\x80PNG", None, None, "is not text (byte 0)"),
        ("forecast: " + "[" * 3_000, None, None, "is not YAML"),
        ("forecast: " + "{a: " * 200 + "}" * 200, 1, "forecast.a", "unknown field"),
        ("x: &x\n  y: *x\n", 1, None, "an alias is part of what it stands for"),
        (LAUGHS, 4, None, f"at most {MOST_NODES:,}"),
        ("interval_s: 1" + "0" * 5000, None, None, "is not YAML that can be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, content: str | bytes, line: int | None, field: str | None, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, content)
    assert said in str(caught.value)
    assert caught.value.source == str(tmp_path / "tuning.yaml")
    assert caught.value.field == field
    assert caught.value.line == line


def test_on_the_command_line(whatif: Command, tmp_path: Path) -> None:
    config = tmp_path / "tuning.yaml"
    refused(whatif("--config", config), "--config", "cannot be read: No such file")
    refused(whatif("--config", tmp_path), "cannot be read")
    refused(whatif("--config", tmp_path / ("x" * 300)), "cannot be read")
    config.write_text("confidense: 0.9\n")
    refused(
        whatif("--config", config), "tuning.yaml, line 1, field confidense: unknown field; did you mean 'confidence'?"
    )
    for text, said in (("interval_s: 1.0e-9", "from 0.1"), ("horizon_intervals: 1.0e+12", "at most 10,000")):
        config.write_text(text)
        refused(whatif("--config", config, "--policy", "planner"), said)
