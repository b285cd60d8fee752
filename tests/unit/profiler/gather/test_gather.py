"""Profiles into a ConfigMap and out of its mounted volume again."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from profiler.cli import app
from profiler.errors import DependencyError, InputError
from profiler.folders import load_profiles
from profiler.gather import bundle as bundles
from profiler.gather.announce import Announcer
from profiler.gather.bundle import bundle
from profiler.tables import find_profiles, fingerprint
from tests.unit.profiler.gather.mounting import mount

ROOT = Path(__file__).resolve().parents[4]
HERE = ROOT / "profiling_results" / "llama-3.1-8b-instruct" / "h200-sxm" / "vllm-0.26.0"


def test_a_mounted_config_map_is_the_profiles_byte_for_byte(tmp_path: Path) -> None:
    made = bundle(load_profiles([HERE], field="DIR"))
    back = load_profiles([mount(tmp_path, made.data, made.items)], field="profiles")
    assert {one.path.name for one in back} == {path.name for path in find_profiles(HERE)}
    assert {one.path.name: fingerprint(one.path) for one in back} == {
        path.name: fingerprint(path) for path in find_profiles(HERE)
    }


def test_keys_are_what_kubernetes_allows_and_places_are_folders() -> None:
    made = bundle(load_profiles([HERE / "decode-tp2-dp1"], field="DIR"))
    assert made.places == {
        "decode-tp2-dp1.profile.json": "decode-tp2-dp1/profile.json",
        "decode-tp2-dp1.decode.csv": "decode-tp2-dp1/decode.csv",
        "decode-tp2-dp1.transfer.csv": "decode-tp2-dp1/transfer.csv",
    }


def test_folders_that_link_to_themselves_are_found_once(tmp_path: Path) -> None:
    shutil.copytree(HERE / "prefill-tp1-dp1", tmp_path / "p" / "prefill-tp1-dp1")
    (tmp_path / "p" / "again").symlink_to(tmp_path / "p")
    shutil.copytree(HERE / "prefill-tp1-dp1", tmp_path / "p" / ".being-written" / "prefill-tp1-dp1")
    assert find_profiles(tmp_path / "p") == [tmp_path / "p" / "prefill-tp1-dp1"]


def test_only_some_roles() -> None:
    profiles = load_profiles([HERE], field="DIR")
    made = bundle(profiles, ["decode"])
    assert {key.split("-")[0] for key in made.data} == {"decode"}
    assert len({key.split(".")[0] for key in made.data}) == sum(one.meta.role == "decode" for one in profiles)
    with pytest.raises(InputError, match="no profile of aggregated"):
        bundle([one for one in profiles if one.meta.role == "decode"], ["aggregated"])


def test_two_engines_in_one_config_map_are_refused() -> None:
    with pytest.raises(InputError, match=r"tp1-dp1 is here and in .*h100-sxm.*one model, GPU and engine"):
        bundle(load_profiles([HERE.parents[1]], field="DIR"))


def test_more_than_a_config_map_holds_is_refused_with_its_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MOST_BYTES", 4096)
    with pytest.raises(InputError, match=r"the profiles are \d+ KiB \(.*aggregated-tp1-dp1 \d+ KiB.*at most 4 KiB"):
        bundle(load_profiles([HERE], field="DIR"))


def test_the_file_is_a_config_map_and_the_volume_mounts_it(tmp_path: Path) -> None:
    out, items = tmp_path / "cm.yaml", tmp_path / "items.yaml"
    said = CliRunner().invoke(
        app,
        ["gather", str(HERE), "--configmap", "chat", "--namespace", "serving", "--out", str(out), "--items", str(items),
         "--output", "json"],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    made, volume = yaml.safe_load(out.read_text()), yaml.safe_load(items.read_text())
    assert (made["kind"], made["metadata"]["name"], made["metadata"]["namespace"]) == ("ConfigMap", "chat", "serving")
    assert made["data"] == dict(bundle(load_profiles([HERE], field="DIR")).data)
    assert volume["configMap"]["items"] == json.loads(said.output)["items"]
    mounted = mount(tmp_path / "mounted", made["data"], volume["configMap"]["items"])
    assert len(load_profiles([mounted], field="profiles")) == len(find_profiles(HERE))


def test_nowhere_to_write_is_an_error() -> None:
    said = CliRunner().invoke(app, ["gather", str(HERE), "--configmap", "chat"])
    assert isinstance(said.exception, InputError)
    assert "--apply" in str(said.exception)


class Board:
    """A ConfigMap that may be out of reach, or slow."""

    def __init__(self) -> None:
        self.written: list[dict[str, str]] = []
        self.down = False
        self.gate = threading.Event()
        self.gate.set()

    def merge(self, _: str, data: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:  # noqa: ARG002
        self.gate.wait(5.0)
        if self.down:
            raise DependencyError("no route")
        self.written.append(dict(data))


def test_a_phase_that_turns_is_shown_and_progress_waits() -> None:
    board, said = Board(), list[str]()
    with Announcer(board, "status", "tp1", said.append) as announcer:
        announcer.tell({"phase": "initialising", "layout": "tp1", "samples": 0})
        while not board.written:  # While the run goes on, not at its end.
            time.sleep(0.001)
        for phase, samples in (("starting", 0), ("sampling", 1), ("sampling", 2), ("sampling", 3), ("done", 3)):
            announcer.tell({"phase": phase, "layout": "tp1", "samples": samples})
    shown = [json.loads(one["tp1"]) for one in board.written]
    assert shown[-1] == {"phase": "done", "layout": "tp1", "samples": 3}
    assert not any(state["samples"] == 2 for state in shown)
    assert said == []


def test_the_last_state_is_shown_even_if_the_cluster_is_slow() -> None:
    board = Board()
    board.gate.clear()
    with Announcer(board, "status", "tp1", str) as announcer:
        announcer.tell({"phase": "starting"})
        announcer.tell({"phase": "sampling"})
        announcer.tell({"phase": "sampling", "samples": 7})
        board.gate.set()
    assert json.loads(board.written[-1]["tp1"]) == {"phase": "sampling", "samples": 7}


def test_a_cluster_that_is_gone_is_said_once_and_ends_nothing() -> None:
    board, said = Board(), list[str]()
    board.down = True
    with Announcer(board, "status", "tp1", said.append) as announcer:
        announcer.tell({"phase": "starting"})
        announcer.tell({"phase": "sampling"})
    assert said == ["the state is not shown: no route"]
