"""The real package, which the other tests know by recorded answers only.

    pip install 'plimsoll[estimate]' && pytest tests/optional/test_aiconfigurator.py

or, where it is installed for another interpreter,

    PLIMSOLL_AICONFIGURATOR=/path/to/python pytest tests/optional/test_aiconfigurator.py
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.estimated.build import profiles
from profiler.estimated.plan import Worker, plan
from profiler.estimated.query import ask
from profiler.models.catalog import find_model
from profiler.tables import load_profile, save_profile
from tests.unit.profiler.estimated.record import FIXTURE, recorded_plan

NAMED = os.environ.get("PLIMSOLL_AICONFIGURATOR")
PYTHON = Path(NAMED) if NAMED else None
H200 = Path(__file__).parents[2] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"

pytestmark = pytest.mark.skipif(
    PYTHON is None and find_spec("aiconfigurator_core") is None,
    reason="no aiconfigurator-core: install the extra `estimate`, or set PLIMSOLL_AICONFIGURATOR to a Python with it",
)


def test_package_answers_as_recorded() -> None:
    found, recorded = ask(recorded_plan().request, PYTHON), json.loads(FIXTURE.read_text())["answer"]
    if found.package != recorded["package"]:
        pytest.skip(f"aiconfigurator-core {found.package} is installed, {recorded['package']} was recorded")
    for kind in ("prefill", "decode", "mixed"):
        assert np.allclose(getattr(found, kind), recorded[kind], rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "gpu", "tp", "dp", "experts"),
    [
        ("llama-3.1-70b", "h100-sxm", 4, 1, False),
        ("qwen3-30b-a3b", "h200-sxm", 2, 2, True),
        ("mistral-7b-v0.3", "h100-sxm", 2, 1, False),
    ],
)
def test_layouts_of_shipped_models(tmp_path: Path, model: str, gpu: str, tp: int, dp: int, *, experts: bool) -> None:
    config = find_model(model)
    made = plan(Worker(config=config, name=model, gpu=gpu, tp=tp, dp=dp, expert_parallel=experts))
    for folder, (meta, rows) in profiles(made, ask(made.request, PYTHON)).items():
        assert save_profile(tmp_path / folder, meta, rows).meta.source.form == "estimated"


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("llama-3.1-8b", "0.11.0", r"has no vllm 0\.11\.0 for h100_sxm; expected one of"),
        ("deepseek-v2-lite", None, "DeepseekV2ForCausalLM is not supported"),
    ],
)
def test_what_it_has_not_is_refused(model: str, version: str | None, words: str) -> None:
    made = plan(Worker(config=find_model(model), name=model, gpu="h100-sxm", engine_version=version))
    with pytest.raises(InputError, match=words):
        ask(made.request, PYTHON)


def test_error_against_a_measured_profile(tmp_path: Path) -> None:
    """Llama-3.1-8B FP8 on an H200 as Dynamo measured it: the figures in docs/how-to/estimate-without-gpu.md."""
    config = find_model("llama-3.1-8b", dtype="fp8")
    made = plan(Worker(config=config, name=config.name, gpu="h200-sxm", engine_version="0.24.0"))
    meta, rows = profiles(made, ask(made.request, PYTHON))["aggregated-tp1-dp1"]
    estimate = save_profile(tmp_path / "estimate", meta, rows)
    fill, step = load_profile(H200 / "prefill-tp1-dp1").prefill, load_profile(H200 / "decode-tp1-dp1").decode
    assert estimate.prefill is not None
    assert estimate.decode is not None
    assert fill is not None
    assert step is not None
    ttft = estimate.prefill.ttft_ms(fill.tokens) / fill.medians_ms - 1
    itl = estimate.decode.itl_ms(*step.points.T) / step.medians_ms - 1
    print(f"TTFT {ttft.min():+.1%} to {ttft.max():+.1%}, mean {np.abs(ttft).mean():.1%} of {len(ttft)}")
    print(f"ITL {itl.min():+.1%} to {itl.max():+.1%}, mean {np.abs(itl).mean():.1%} of {len(itl)}")
    assert np.abs(ttft).mean() < 0.30
    assert np.abs(itl).mean() < 0.15
    # Too fast throughout, as the warning says: a promise that rests on it needs room.
    assert ttft.max() < 0
    assert itl.max() < 0
