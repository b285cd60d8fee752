"""The program that talks to the package, with a package of its own."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from profiler.estimated import worker


class Engine:
    """Times that tell their arguments."""

    compiled: ClassVar[dict[str, Any]] = {}

    @classmethod
    def compile(cls, _: str, system: str, backend: str, **options: Any) -> "Engine":
        if options["tp_size"] == 3:
            raise AssertionError("num_heads 32 should be divisible\nby tp_size 3")
        if options["tp_size"] == 5:
            raise KeyError("a fault of the package")
        cls.compiled = {"system": system, "backend": backend, **options}
        return cls()

    def predict_prefill_latency(self, batch: int, length: int, prefix: int) -> float:
        return batch * 1e6 + length + prefix / 1e6

    def predict_decode_latency(self, batch: int, length: int, osl: int) -> float:
        return batch * 1e6 + length + osl / 10

    def mixed_step_breakdown(self, tokens: int, batch: int, length: int, osl: int) -> tuple[float, float, float, float]:
        assert osl == 2
        return float("nan"), 100.0 * (tokens + batch), 1e4 * length, 1e6 * length

    def run_static_per_op(self, **options: Any) -> tuple[list[Any], list[Any]]:
        held = [("gemm", 3.0, 0.0, "silicon"), ("norm", 1.0, 0.0, "empirical"), ("gemm2", 2.0, 0.0, "silicon")]
        return (held, []) if options["mode"] == "static_ctx" else ([], held)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    databases = SimpleNamespace(
        get_supported_databases=lambda: {"h100_sxm": {"vllm": ["0.24.0", "0.27.0"]}, "b60": {"trtllm": ["1"]}},
        get_latest_database_version=lambda *_: "0.24.0",
        get_database=lambda *_: object(),
    )
    errors = SimpleNamespace(is_expected_cli_error=lambda error: isinstance(error, ValueError))
    for name, held in (("", {}), (".sdk", {"EngineHandle": Engine}), (".sdk.perf_database", vars(databases)),
                       (".sdk.errors", vars(errors))):  # fmt: skip
        module = ModuleType(f"aiconfigurator_core{name}")
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(worker.metadata, "version", lambda _: "0.12.0")


def request(**changes: Any) -> dict[str, Any]:
    made = {
        "config": {}, "system": "h100_sxm", "version": None, "tp": 1, "dp": 1, "moe_tp": 1, "moe_ep": 1,
        "gemm": None, "moe": None, "kv": None,
        "prefill": [[100, 0], [100, 8192]], "decode": [[4, 1024], [4, 1]], "mixed": [[256, 8, 513]],
    }  # fmt: skip
    return made | changes


def test_points_in_the_package_s_terms() -> None:
    found = worker.answer(request())
    assert (found["package"], found["version"], found["current"]) == ("0.12.0", "0.24.0", "0.24.0")
    # A length counts what was computed before; a step comes after the context less its own token.
    assert found["prefill"] == [1e6 + 100, 1e6 + 8292 + 8192 / 1e6]
    assert found["decode"] == [4e6 + 1023.2, 4e6 + 1.2]
    # Each half at its own length: the prompt's 256 tokens, the steps' 512.
    assert found["mixed"] == [100 * 264 + 1e4 * 256 + 1e6 * 512]
    assert found["sources"]["prefill"] == {"silicon": 5.0, "empirical": 1.0}
    assert Engine.compiled["backend_version"] == "0.24.0"


def test_what_is_not_there_is_answered_with_what_is() -> None:
    assert worker.answer(request(system="b60"))["known"] == ["h100_sxm"]
    refused = worker.answer(request(version="0.11.0"))
    assert (refused["field"], refused["known"]) == ("version", ["0.24.0", "0.27.0"])
    assert worker.answer(request(tp=3))["refused"] == "num_heads 32 should be divisible by tp_size 3"


def test_faults_of_the_package_are_not_refusals() -> None:
    with pytest.raises(KeyError):
        worker.answer(request(tp=5))
