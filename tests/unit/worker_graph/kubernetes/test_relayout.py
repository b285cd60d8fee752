"""A container with another layout: arguments in every form that people write, and GPUs."""

from __future__ import annotations

import copy
import shlex
from typing import Any

import pytest

from profiler.errors import InputError
from worker_graph.kubernetes.relayout import layout_of, relayout


def _container(**keys: Any) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": "2", "memory": "64Gi"}
    return {"name": "main", "resources": {"limits": limits, "requests": {"nvidia.com/gpu": 2, "cpu": "4"}}, **keys}


def test_long_flags_in_args_and_gpus_in_limits_and_requests() -> None:
    before = _container(
        command=["vllm", "serve"], args=["M", "--tensor-parallel-size", "2", "--data-parallel-size=1", "--port", "8000"]
    )
    kept = copy.deepcopy(before)
    made = relayout(before, 4, 2)
    assert made["args"] == ["M", "--tensor-parallel-size", "4", "--data-parallel-size=2", "--port", "8000"]
    assert made["resources"] == {
        "limits": {"nvidia.com/gpu": "8", "memory": "64Gi"}, "requests": {"nvidia.com/gpu": "8", "cpu": "4"}
    }  # fmt: skip
    assert before == kept
    assert layout_of(made) == (4, 2)


def test_short_flags_and_underscores_keep_their_form() -> None:
    made = relayout(_container(command=["vllm", "serve", "M", "-tp", "2", "--data_parallel_size", "3"]), 1, 4)
    assert made["command"] == ["vllm", "serve", "M", "-tp", "1", "--data_parallel_size", "4"]


def test_missing_flags_are_added_only_when_they_are_not_the_default() -> None:
    made = relayout(_container(args=["--model", "M"]), 2, 1)
    assert made["args"] == ["--model", "M", "--tensor-parallel-size", "2"]
    assert "command" not in made
    made = relayout(_container(command=["vllm", "serve", "M"]), 1, 2)
    assert made["command"] == ["vllm", "serve", "M", "--data-parallel-size", "2"]


def test_pipeline_stages_multiply_gpus_and_local_ranks_follow() -> None:
    made = relayout(_container(args=["--model", "M", "-pp", "2", "--data-parallel-size-local", "1"]), 2, 2)
    assert made["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert made["args"][:6] == ["--model", "M", "-pp", "2", "--data-parallel-size-local", "2"]


def test_shell_line_changes_numbers_and_nothing_else() -> None:
    line = (
        "export A=1; exec vllm serve 'my model' -tp 2 --data-parallel-size=\"1\" \\\n"
        '  --kv-transfer-config \'{"a": "-tp 2"}\' 2>&1 | tee /tmp/log'
    )
    made = relayout(_container(command=["/bin/sh", "-c"], args=[line]), 4, 2)
    expected = line.replace("model' -tp 2", "model' -tp 4").replace('size="1"', "size=2")
    assert made["args"] == [expected]
    assert made["command"] == ["/bin/sh", "-c"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exec vllm serve M", "exec vllm serve M -X"),
        ("vllm serve M 2>&1", "vllm serve M -X 2>&1"),
        ("vllm serve M && echo done", "vllm serve M -X && echo done"),
        ("vllm serve M \\\n", "vllm serve M -X \\\n"),
        ("vllm serve M # good", "vllm serve M -X # good"),
        ("python3 -m dynamo.vllm --model M > log", "python3 -m dynamo.vllm --model M -X > log"),
    ],
)
def test_what_is_added_to_a_shell_line_belongs_to_the_engine(line: str, expected: str) -> None:
    made = relayout(_container(command=["sh", "-c", line]), 2, 1)
    assert made["command"][2] == expected.replace("-X", "--tensor-parallel-size 2")


def test_back_and_forth_gives_the_same_words() -> None:
    before = _container(command=["sh", "-ec", "exec vllm serve M -tp 2 -dp 1"])
    again = relayout(relayout(before, 8, 4), 2, 1)
    assert shlex.split(again["command"][2]) == shlex.split(before["command"][2])


def test_a_worker_without_gpus_goes_on_without() -> None:
    made = relayout({"name": "main", "args": ["--model", "M"]}, 2, 1)
    assert made == {"name": "main", "args": ["--model", "M", "--tensor-parallel-size", "2"]}


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"name": "w"}, "no command and no arguments"),
        (_container(args=["--model", "M", "-tp", "$(TP)"]), r"\$\(TP\)"),
        (_container(args=["--model", "M", "--tensor-parallel-size"]), "is ''"),
        (_container(args=["--model", "M", "--nnodes", "2"]), "one node of a group"),
        (_container(command=["sh", "run.sh"]), "without -c"),
        (_container(command=["sh", "-c", "./run.sh -tp 2"]), "runs no engine"),
        (_container(command=["sh", "-c", "vllm serve A & vllm serve B"]), "more than one engine"),
        (_container(command=["sh", "-c", 'exec vllm serve M -tp "$TP"']), r"\$TP"),
        (_container(command=["sh", "-c", "exec vllm serve M 'x"]), "cannot be split"),
        (
            {"name": "w", "args": ["-tp", "1"], "resources": {"limits": {"nvidia.com/gpu": 1, "amd.com/gpu": 1}}},
            "one kind of GPU",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(container: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        relayout(container, 2, 1)


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (True, 1)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="whole number from 1"):
        relayout(_container(args=["--model", "M"]), *sizes)
