"""Checks of a GPU host: what the programs print, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planner.doctor.base import Check, Group, Verdict
from planner.doctor.host import judge_driver, judge_gpus, judge_processes, judge_topology, wheel_cuda
from planner.doctor.limits import (
    judge_cores,
    judge_disk,
    judge_governors,
    judge_memory,
    judge_shared_memory,
    judge_ulimits,
    parse_cgroup,
    parse_meminfo,
    parse_quota,
)
from planner.doctor.run import PROBES, look
from planner.doctor.scene import Scene
from planner.doctor.smi import (
    GpuProcess,
    parse_cuda,
    parse_gpus,
    parse_processes,
    parse_remapped,
    parse_topology,
)
from tests.unit.doctor import samples

INF = float("inf")


def verdicts(checks: list[Check]) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in checks}


def test_a_row_of_nvidia_smi_is_read_with_its_units() -> None:
    [gpu] = parse_gpus(samples.H100)
    assert (gpu.index, gpu.name, gpu.uuid) == (0, "NVIDIA H100 80GB HBM3", samples.UUID)
    assert (gpu.memory_mib, gpu.used_mib, gpu.power_w, gpu.default_power_w) == (81559.0, 0.0, 700.0, 700.0)
    assert (gpu.persistence, gpu.ecc, gpu.errors, gpu.errors_ever, gpu.mig) == (True, True, 0, 0, False)


def test_what_a_card_does_not_have_is_unknown_and_not_zero() -> None:
    [gpu] = parse_gpus(samples.CARD)
    assert (gpu.ecc, gpu.errors, gpu.power_w, gpu.mig) == (None, None, None, None)
    found = verdicts(list(judge_gpus([gpu], 0)))
    assert found["persistence"] is Verdict.WARN
    assert "power limit" not in found


@pytest.mark.parametrize("text", ["No devices were found\n", "0, NVIDIA H100, GPU-1\n"])
def test_other_words_of_nvidia_smi_are_an_error_that_repeats_them(text: str) -> None:
    with pytest.raises(ValueError, match=text.strip().split(",", maxsplit=1)[0]):
        parse_gpus(text)


def test_the_drivers_cuda_is_in_the_head() -> None:
    assert parse_cuda(samples.HEAD) == (13, 0)
    assert parse_cuda(samples.HEAD_UMD) == (13, 2)
    assert parse_cuda("no table") is None


def test_a_host_that_is_well() -> None:
    found = list(judge_gpus(parse_gpus(samples.H100), 1))
    assert set(verdicts(found).values()) == {Verdict.PASS}
    assert found[0].found == "1 NVIDIA H100 80GB HBM3 (80 GiB)"


def test_errors_power_sharing_and_number_of_gpus_are_judged() -> None:
    [gpu] = parse_gpus(samples.H100)
    bad = replace(gpu, errors=3, power_w=500.0, mig=True, persistence=False, compute_mode="Prohibited")
    found = verdicts(list(judge_gpus([bad], 2)))
    assert found == {
        "GPUs": Verdict.FAIL,
        "ECC errors": Verdict.FAIL,
        "persistence": Verdict.WARN,
        "power limit": Verdict.WARN,
        "MIG": Verdict.WARN,
        "compute mode": Verdict.FAIL,
    }
    past = verdicts(list(judge_gpus([replace(gpu, errors_ever=1)], 1)))
    assert past["ECC errors"] is Verdict.WARN
    two = list(judge_gpus([gpu, replace(gpu, index=1, name="NVIDIA L40S")], 1, visible="0"))
    assert verdicts(two)["GPUs"] is verdicts(two)["visible GPUs"] is Verdict.WARN
    assert verdicts(list(judge_gpus([], 1))) == {"GPUs": Verdict.FAIL}


def test_processes_are_named_without_their_arguments_and_unseen_memory_is_told() -> None:
    [gpu] = parse_gpus(samples.H100)
    [process] = parse_processes(f"{samples.UUID}, 4242, /usr/bin/python3.12, 71000\n")
    assert process == GpuProcess(samples.UUID, 4242, "/usr/bin/python3.12", 71000.0)
    assert judge_processes([gpu], [process]).found == "1 process: GPU 0: python3.12 (4242)"
    [unseen] = parse_processes(f"{samples.UUID}, 7, [Not Found], [N/A]\n")
    assert unseen.used_mib is None
    assert judge_processes([replace(gpu, used_mib=40_000.0)], []).verdict is Verdict.WARN
    assert judge_processes([gpu], []).verdict is Verdict.PASS


def test_rows_that_wait_to_be_remapped() -> None:
    assert parse_remapped(f"{samples.UUID}, No, No\n") == [(samples.UUID, False, False)]
    assert parse_remapped(f"{samples.UUID}, Yes, No\n") == [(samples.UUID, True, False)]


def test_links_between_gpus_and_nothing_else_in_the_matrix() -> None:
    assert parse_topology(samples.TOPOLOGY_ONE) == {}
    links = parse_topology(samples.TOPOLOGY_NVLINK)
    assert links == {(0, 1): "NV18", (0, 2): "NV18", (1, 2): "NV18"}
    assert judge_topology(links).verdict is Verdict.PASS
    mixed = judge_topology(parse_topology(samples.TOPOLOGY_MIXED))
    assert mixed.verdict is Verdict.WARN
    assert "NV4 (2 pairs), SYS (4 pairs)" in mixed.found
    assert "no NVLink" in judge_topology({(0, 1): "PHB"}).found


@pytest.mark.parametrize(
    ("versions", "cuda"),
    [
        ({"torch": "2.9.0+cu128"}, (12, 8)),
        ({"torch": "2.11.0", "nvidia-cuda-runtime": "13.0.96"}, (13, 0)),
        ({"torch": "2.8.0", "nvidia-cuda-runtime-cu12": "12.8.90"}, (12, 8)),
        ({"torch": "2.9.0+cpu"}, None),
        ({}, None),
    ],
)
def test_cuda_of_the_wheels(versions: dict[str, str], cuda: tuple[int, int] | None) -> None:
    assert wheel_cuda(versions) == cuda


@pytest.mark.parametrize(
    ("driver", "serves", "wheels", "verdict"),
    [
        ("580.159.04", (13, 0), (13, 0), Verdict.PASS),
        ("580.159.04", (13, 0), (12, 8), Verdict.PASS),
        ("550.54.15", (12, 4), (12, 8), Verdict.WARN),
        ("550.54.15", (12, 4), (13, 0), Verdict.FAIL),
        ("470.82.01", (11, 4), (12, 1), Verdict.FAIL),
        ("580.159.04", (13, 0), None, Verdict.PASS),
    ],
)
def test_the_driver_beside_the_wheels(
    driver: str, serves: tuple[int, int], wheels: tuple[int, int] | None, verdict: Verdict
) -> None:
    assert judge_driver(driver, serves, wheels).verdict is verdict


def test_shared_memory_of_a_plain_container_fails() -> None:
    assert judge_shared_memory(0.0625, 0.0625).verdict is Verdict.FAIL
    assert judge_shared_memory(16.0, 1.0).verdict is Verdict.WARN
    assert judge_shared_memory(16.0, 16.0).verdict is Verdict.PASS


def test_ulimits_say_whether_they_can_be_raised() -> None:
    good = {"memlock": (INF, INF), "nofile": (65536.0, 65536.0), "nproc": (INF, INF)}
    assert [one.verdict for one in judge_ulimits(good)] == [Verdict.PASS]
    low = {**good, "nofile": (1024.0, 524288.0), "memlock": (8388608.0, 8388608.0)}
    found = {one.name: one for one in judge_ulimits(low)}
    assert found["ulimit nofile"].fix == "ulimit -n 65536"
    assert "the hard limit is 8192 KiB" in found["ulimit memlock"].fix


def test_memory_of_host_and_container() -> None:
    total, available = parse_meminfo(samples.MEMINFO)
    assert (round(total, 1), round(available, 1)) == (125.8, 94.3)
    with pytest.raises(ValueError, match="MemAvailable"):
        parse_meminfo("MemTotal: 5 kB\n")
    assert parse_cgroup("max\n", "1073741824\n") == (None, 1.0)
    assert parse_cgroup("9223372036854771712\n", "0\n") == (None, 0.0)
    assert parse_cgroup("17179869184\n", "8589934592\n") == (16.0, 8.0)
    assert judge_memory(total, available, None, 0.0).verdict is Verdict.PASS
    full = judge_memory(total, available, 16.0, 15.9)
    assert full.verdict is Verdict.WARN
    assert "may use 16 GiB and uses 16" in full.found


def test_cores_governor_and_disk() -> None:
    assert parse_quota("max 100000\n") is None
    assert parse_quota("400000 100000\n") == 4.0
    assert judge_cores(16, 8).verdict is Verdict.WARN
    assert judge_cores(64, 8).verdict is judge_cores(2, 0).verdict is Verdict.PASS
    assert judge_governors({"powersave", "performance"}).verdict is Verdict.WARN
    assert judge_governors({"performance"}).verdict is Verdict.PASS
    folder = Path("/models")
    assert judge_disk(folder, 500.0, writable=True).verdict is Verdict.PASS
    assert judge_disk(folder, 20.0, writable=True).verdict is Verdict.WARN
    assert judge_disk(folder, 1.0, writable=True).verdict is Verdict.FAIL
    assert judge_disk(folder, 500.0, writable=False).verdict is Verdict.FAIL


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
    """An nvidia-smi that prints what one of that host printed."""
    for name, text in answers.items():
        (folder / name).write_text(text)
    cases = {"--query-gpu": "gpus", "--query-compute": "processes", "--query-remapped": "rows", "topo": "topology"}
    lines = [f"{option}*) cat {folder / file} ;;" for option, file in cases.items() if file in answers]
    head = (
        f"*) cat {folder / 'head'} ;;" if "head" in answers else "*) echo 'NVML: Driver/library mismatch'; exit 18 ;;"
    )
    program = folder / "nvidia-smi"
    program.write_text("\n".join(["#!/bin/sh", 'case "$1" in', *lines, head, "esac"]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_nvidia_smi_is_asked_and_its_answers_become_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(
        tmp_path, monkeypatch, gpus=samples.H100, processes="", rows=f"{samples.UUID}, Yes, No\n",
        topology=samples.TOPOLOGY_ONE, head=samples.HEAD,
    )  # fmt: skip
    found = {check.name: check for probe in PROBES[Group.HOST][:4] for check in look(probe, Scene(), 30.0)}
    assert found["GPUs"].found == "1 NVIDIA H100 80GB HBM3 (80 GiB)"
    assert (found["memory rows"].verdict, "GPU 0" in found["memory rows"].found) == (Verdict.FAIL, True)
    assert found["processes"].verdict is Verdict.PASS
    assert found["links"].verdict is Verdict.SKIP
    assert found["driver"].found.startswith("580.159.04, for CUDA up to 13.0")


def test_a_driver_that_does_not_answer_is_a_failure_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, monkeypatch)
    [check] = look("host:gpus", Scene(), 30.0)
    assert check.verdict is Verdict.FAIL
    assert "NVML: Driver/library mismatch" in check.found
