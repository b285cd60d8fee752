"""The configuration: what it may say, and how contradictions are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.service.checks import check_consistent
from planner.service.load import load_config
from planner.service.model import load_model
from planner.service.validate import validate
from profiler.errors import InputError
from tests.unit.service.conftest import PROFILES, settings

CLUSTER = {"kind": "kubernetes", "dry_run": None}
DGD = {"kind": "DynamoGraphDeployment", "name": "chat"}
POD = {**DGD, "kind": "Pod"}
ONE = {"prefill": {"name": "p"}}
BOTH = {"graph": DGD, "objects": ONE}
LOCAL = {"kind": "local", "local": {"control_url": "http://127.0.0.1:1"}, "dry_run": None}
SHIPPED = PROFILES / "h200-sxm" / "vllm-unknown"
AGG = {"agg": {"role": "aggregated"}}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "planner.yaml"
    path.write_text(yaml.safe_dump(settings(**changes), sort_keys=False))
    return path


def pools(prefill: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"prefill": {"role": "prefill", **(prefill or {})}, "decode": {"role": "decode"}, **more}


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"graf": 1}, "graf", "did you mean 'graph'?"),
        ({"sla": {"ttft": 5}}, "sla.ttft", "did you mean 'ttft_ms'?"),
        ({"sla": {"ttft_ms": 0}}, "sla.ttft_ms", "greater than 0"),
        ({"graph": "no spaces"}, "graph", "match"),
        ({"service": {"port": 70000}}, "service.port", "65535"),
        ({"service": {"lease_s": True}}, "service.lease_s", "is True"),
        ({"tuning": {"intervall_s": 1}}, "tuning.intervall_s", "did you mean 'interval_s'?"),
        ({"pools": pools({"min_workers": 5, "max_workers": 4})}, "pools.prefill.min_workers", "max_workers (4)"),
        ({"pools": pools(other={"role": "decode"})}, "pools.decode.role", "one pool per role"),
        ({"pools": {"prefill": {"role": "prefill"}}}, "pools", "a prefill and a decode pool"),
        ({"pools": pools(agg={"role": "aggregated"})}, "pools", "a prefill and a decode pool"),
        ({"connector": {"kind": "local", "dry_run": None}}, "connector.kind", "control_url"),
        ({"connector": {"dry_run": None}}, "connector.kind", "without a supply"),
        ({"connector": {**LOCAL, "dry_run": {"workers": {}}}}, "connector.dry_run", "beside kind 'local'"),
        ({"connector": {"dry_run": {"workers": {"prefill": 1}}}}, "connector.dry_run.workers", "prefill, decode"),
        ({"connector": {**LOCAL, "kubernetes": {}}}, "connector.kubernetes", "beside kind 'local'"),
        ({"connector": {**CLUSTER, "local": LOCAL["local"]}}, "connector.local", "beside kind 'kubernetes'"),
        ({"connector": {"kubernetes": {}}}, "connector.dry_run", "beside connector.kubernetes"),
        ({"connector": {**CLUSTER, "kubernetes": {"objects": ONE}}}, "connector.kubernetes.objects", "decode"),
        ({"connector": {**CLUSTER, "kubernetes": BOTH}}, "connector.kubernetes.objects", "connector.kubernetes.graph"),
        ({"connector": {**CLUSTER, "kubernetes": {"graph": POD}}}, "connector.kubernetes.graph.kind", "Pod"),
        ({"connector": {**CLUSTER, "kubernetes": {"namespace": "Chat"}}}, "connector.kubernetes.namespace", "'Chat'"),
        ({"metrics": {"prometheus": {"url": "http://p"}}}, "metrics.prometheus", "beside source 'scrape'"),
        ({"metrics": {"source": "prometheus"}}, "metrics.source", "with a url"),
        ({"metrics": {"scrape": {"period_s": 20}}}, "metrics.scrape.period_s", "at most the interval's 15 s"),
        ({"metrics": {"source": "prometheus", "prometheus": {"url": "http://p"}, "scrape": {}}}, "metrics.scrape", ""),
        ({"service": {"journal": "x", "checkpoint": "./x"}}, "service.checkpoint", "is the journal's file"),
        ({"service": {"lease_s": 20}}, "service.lease_s", "at least two intervals, 30 s"),
        ({"speed_up": 1000}, "tuning.interval_s", "at least 100"),
        ({"lead_time_s": 86400, "tuning": {"interval_s": 1}}, "lead_time_s", "at most 10,000"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], field: str, said: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert caught.value.field == field
    assert said in str(caught.value)
    assert caught.value.source == str(path)
    assert caught.value.line is not None


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"budget": {"max_gpus": 1}}, "budget.max_gpus", "at least 2"),
        ({"pools": pools({"min_workers": 20})}, "pools.prefill.min_workers", "at most 16"),
        ({"profiles": [str(SHIPPED / "prefill-tp1-dp1")]}, "profiles", "no decode profile"),
        ({"profiles": ["nowhere"]}, "profiles", "holds no profile"),
    ],
)  # fmt: skip
def test_what_profiles_contradict_is_named(tmp_path: Path, changes: dict[str, Any], field: str, said: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        load_model(load_config(path), path)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_paths_count_from_the_file_and_pools_follow_the_budget(tmp_path: Path) -> None:
    (tmp_path / "profiles").symlink_to(PROFILES)
    path = written(tmp_path, profiles=["profiles"], pools=AGG, connector={"dry_run": {"workers": {"agg": 1}}})
    config = load_config(path)
    assert config.service.journal == tmp_path / "planner-journal.jsonl"
    model = load_model(config, path)
    assert [(p.name, p.min_workers, p.max_workers) for p in model.settings.pools] == [("agg", 1, 16)]
    assert all(Path(one.path).is_absolute() for one in model.profiles)
    check_consistent(config, path)


def test_validate_says_what_cannot_be_reached(tmp_path: Path) -> None:
    found = {one.about: one for one in validate(written(tmp_path, connector=LOCAL))}
    assert found["configuration"].ok
    assert found["journal"].ok
    assert not found["connector"].ok
    assert "127.0.0.1:1" in found["connector"].text
    assert not found["scrape"].ok
    # Checking leaves nothing behind.
    assert [file.name for file in tmp_path.iterdir()] == ["planner.yaml"]
