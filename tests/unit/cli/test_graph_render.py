"""`planner graph render`: streams, files, exit codes."""

from pathlib import Path

import pytest
import yaml

from tests.unit.cli.conftest import Command

MANIFESTS = Path(__file__).parents[3] / "manifests"


def test_documents_and_a_list(command: Command) -> None:
    text = command("graph", "render", str(MANIFESTS / "disagg.yaml"))
    assert (text.code, text.err) == (0, "")
    documents = list(yaml.safe_load_all(text.out))
    listed = command("graph", "render", str(MANIFESTS / "disagg.yaml"), "--output", "json")
    assert listed.json == {"apiVersion": "v1", "kind": "List", "items": documents}


def test_files_and_a_kustomization(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "objects"
    ended = command(
        "graph", "render", str(MANIFESTS / "agg.yaml"), "--target", "lws", "--out", str(folder), "--namespace", "n"
    )
    assert ended.code == 0
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted([*resources, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir())
    assert "deployment-vllm-agg-vllmworker.yaml" in resources
    assert {yaml.safe_load((folder / name).read_text())["metadata"]["namespace"] for name in resources} == {"n"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "nomad"], "--target"),
        (["--longest-decode-s", "-1"], "--longest-decode-s"),
        (["--itl-ms", "inf"], "--itl-ms"),
        (["--max-output-tokens", "0"], "--max-output-tokens"),
        (["--namespace", "Not Good"], "--namespace"),
        (["--api-version", "v1beta1"], "--api-version"),
        (["--target", "dynamo", "--api-version", "v3"], "--api-version"),
        (["--out", "/proc/no/such"], "--out"),
    ],
)
def test_bad_input_is_exit_2_and_named(command: Command, words: list[str], said: str) -> None:
    ended = command("graph", "render", str(MANIFESTS / "agg.yaml"), *words)
    assert ended.code == 2
    assert said in ended.err
