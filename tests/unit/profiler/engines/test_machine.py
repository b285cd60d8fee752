"""GPUs as nvidia-smi tells them, and what an engine's log says about its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.engines.machine import ClockWatch, read_machine
from profiler.engines.symptoms import symptom, tail
from profiler.errors import InputError

TWO = "0, NVIDIA H100 80GB HBM3, 81559, 570.86.15\n1, NVIDIA H100 80GB HBM3, 81559, 570.86.15\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers of an nvidia-smi of our own, in a file."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec cat "{tmp_path}/answer"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "answer"


def test_gpus_have_short_names(smi: Path) -> None:
    smi.write_text(TWO)
    machine = read_machine(None, None)
    assert (machine.gpu, machine.driver, [d.index for d in machine.devices]) == ("h100-sxm", "570.86.15", [0, 1])
    assert [device.index for device in read_machine(None, (1,)).devices] == [1]


def test_only_gpus_that_this_process_may_see(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi.write_text(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [device.index for device in read_machine(None, None).devices] == [1]


def test_a_gpu_that_is_not_here(smi: Path) -> None:
    smi.write_text(TWO)
    with pytest.raises(InputError, match=r"field --gpus: names GPU 5.*some of 0, 1"):
        read_machine(None, (0, 5))


def test_gpus_of_two_kinds(smi: Path) -> None:
    smi.write_text(TWO.replace("1, NVIDIA H100 80GB HBM3", "1, NVIDIA A100-SXM4-80GB"))
    with pytest.raises(InputError, match="several kinds"):
        read_machine(None, None)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"field --gpu: no GPU found: nvidia-smi"):
        read_machine(None, None)
    assert read_machine("cpu", None).is_cpu


def test_a_gpu_that_was_slowed_down_is_a_warning() -> None:
    watch = ClockWatch([0])
    watch._add(1980.0, 45.0, "0x0000000000000001")  # idle: no reason to worry
    assert watch.warnings() == ()
    watch._add(1200.0, 88.0, "0x0000000000000020")  # too hot
    (warning,) = watch.warnings()
    assert "1 of 2 readings" in warning
    assert "1200 to 1980 MHz" in warning
    assert watch.facts()["temperature_c"] == {"min": 45.0, "median": 66.5, "max": 88.0}


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            "out of memory",
        ),
        ("RuntimeError: NCCL error in: ProcessGroupNCCL.cpp", "its GPUs could not talk (NCCL)"),
        ("KeyError: 'model.layers.0'", None),
    ],
)
def test_logs_tell_why(tmp_path: Path, line: str, meaning: str | None) -> None:
    log = tmp_path / "log"
    log.write_text(f"INFO loading\n\x1b[31mERROR {line}\x1b[0m\n\n")
    assert symptom(log) == meaning
    assert tail(log, 1) == [f"ERROR {line}"]
