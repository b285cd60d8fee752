"""What an engine says of itself, and what its command line says: facts that its timing depends on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from worker_graph.vllm.flags import SHORT

CACHE_INFO = "vllm:cache_config_info"

_SHELLS = frozenset({"sh", "bash", "dash"})


@dataclass(frozen=True)
class Running:
    """What one engine answers.

    Attributes:
        address: host:port.
        version: of `/version`; empty where it does not say.
        models: ids of `/v1/models`, and the roots behind them.
        max_model_len: as it says.
        caches: labels of `vllm:cache_config_info`, one mapping for each of its data-parallel ranks.
        why: that it could not be asked.
    """

    address: str
    version: str = ""
    models: tuple[str, ...] = ()
    max_model_len: int | None = None
    caches: tuple[Mapping[str, str], ...] = ()
    why: str = ""

    @property
    def kv_tokens(self) -> int | None:
        """Tokens of KV cache over all ranks; None where the metrics do not say."""
        sizes = [cache_tokens(one) for one in self.caches]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    @property
    def block_size(self) -> int | None:
        """Tokens of a block."""
        return next((int(one["block_size"]) for one in self.caches if one.get("block_size", "").isdigit()), None)


def cache_tokens(labels: Mapping[str, str]) -> int | None:
    """Tokens of one rank's KV cache; newer engines say it, older ones say blocks and their size."""
    if labels.get("kv_cache_size_tokens", "").isdigit():
        return int(labels["kv_cache_size_tokens"])
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    return int(blocks) * int(size) if blocks.isdigit() and size.isdigit() else None


def cache_labels(text: str) -> tuple[Mapping[str, str], ...]:
    """Labels of the cache's description in a page of metrics."""
    lines = "\n".join(line for line in text.splitlines() if line.startswith(f"{CACHE_INFO}{{"))
    families = text_string_to_metric_families(f"{lines}\n")
    return tuple(sample.labels for family in families for sample in family.samples)


def ask(address: str, timeout_s: float = 3.0) -> Running:
    """An engine's `/version`, `/v1/models` and the description of its cache."""
    try:
        version = requests.get(f"http://{address}/version", timeout=timeout_s)
        models = requests.get(f"http://{address}/v1/models", timeout=timeout_s)
        metrics = requests.get(f"http://{address}/metrics", timeout=timeout_s)
    except requests.exceptions.Timeout:
        return Running(address, why=f"no answer within {timeout_s:g} s")
    except requests.exceptions.RequestException as error:
        return Running(address, why=str(error).rsplit(": ", 1)[-1].strip("'\")>"))
    try:
        listed = (models.json().get("data") or []) if models.ok else []
        names = [str(one[key]) for one in listed for key in ("id", "root") if one.get(key)]
        lengths = [int(one["max_model_len"]) for one in listed if one.get("max_model_len")]
        return Running(
            address,
            version=str(version.json().get("version", "")) if version.ok else "",
            models=tuple(dict.fromkeys(names)),
            max_model_len=lengths[0] if lengths else None,
            caches=cache_labels(metrics.text) if metrics.ok else (),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return Running(address, why=f"answers something else than an engine: {error}")


def words_of(container: Mapping[str, Any]) -> list[str]:
    """Words of a container's command line; the script of a `sh -c` is taken apart."""
    words = [str(word) for key in ("command", "args") for word in container.get(key) or ()]
    if words and PurePosixPath(words[0]).name in _SHELLS:
        found = []
        for word in words[1:]:
            try:
                found += shlex.split(word.replace("\\\n", " "))
            except ValueError:
                found += word.split()
        return found
    return words


def flags_of(words: Sequence[str]) -> dict[str, str]:
    """Flags in their long form with hyphens and their values, empty where a flag has none; the last one counts."""
    found: dict[str, str] = {}
    for index, word in enumerate(words):
        written, equals, value = word.partition("=")
        name = written.replace("_", "-") if written.startswith("--") else SHORT.get(written, "")
        if not name.startswith("--"):
            continue
        following = words[index + 1] if index + 1 < len(words) else "-"
        found[name] = value if equals else ("" if following.startswith("-") else following)
    return found
