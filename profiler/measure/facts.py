"""What a live engine says about itself, by its API and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from profiler.errors import DependencyError, InputError
from profiler.measure.base import Facts

_CACHE = "vllm:cache_config_info"
_TIMEOUT = aiohttp.ClientTimeout(total=30.0)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of an engine's metrics: totals over its ranks by sample name, labels other than `source` left out.

    Attributes:
        totals: sums by sample name; `prompt_tokens_by_source` by `name{source}`.
        cache: labels of `vllm:cache_config_info`, one mapping for each rank.
    """

    totals: Mapping[str, float]
    cache: tuple[Mapping[str, str], ...]

    def get(self, name: str) -> float:
        """A total; 0 where the engine does not export it (counters appear with their first event)."""
        return self.totals.get(name, 0.0)


async def scrape(session: aiohttp.ClientSession, url: str) -> Scrape:
    """Read an engine's metrics.

    Raises:
        DependencyError: it does not answer, or with something else.
    """
    try:
        async with session.get(f"{url}/metrics", timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise DependencyError(f"{url}/metrics: {error or type(error).__name__}") from None
    return parse(text)


def parse(text: str) -> Scrape:
    """Metrics in Prometheus' text format; histograms' buckets are left out."""
    totals: dict[str, float] = {}
    cache: list[Mapping[str, str]] = []
    # Buckets are most of the text and not needed; parsing them takes most of the time.
    kept = "\n".join(line for line in text.splitlines() if "_bucket{" not in line and line.startswith(("vllm:", "# T")))
    for family in text_string_to_metric_families(kept + "\n"):
        for sample in family.samples:
            if sample.name == _CACHE:
                cache.append(sample.labels)
                continue
            source = sample.labels.get("source")
            name = sample.name if source is None else f"{sample.name}{{{source}}}"
            totals[name] = totals.get(name, 0.0) + sample.value
    return Scrape(totals, tuple(cache))


async def read_facts(
    url: str, model: str | None = None, *, max_num_seqs: int | None = None, max_num_batched_tokens: int | None = None
) -> Facts:
    """Facts of a live engine.

    Args:
        url: base address, without `/v1`.
        model: served name, where it serves several.
        max_num_seqs: as it was started; no interface of it tells.
        max_num_batched_tokens: likewise.

    Raises:
        InputError: it does not serve the model, or serves several and none is named.
        DependencyError: it does not answer.
    """
    base = url.rstrip("/")
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        models = (await _json(session, f"{base}/v1/models")).get("data") or []
        names = [str(one.get("id")) for one in models]
        if model is None and len(names) == 1:
            model = names[0]
        if model not in names:
            expected = "one of " + ", ".join(names) if names else "an engine that serves a model"
            raise InputError(f"is {model!r}", expected=expected, field="--served-model")
        version = (await _json(session, f"{base}/version")).get("version")
        seen = await scrape(session, base)
    limit = next(one.get("max_model_len") for one in models if one.get("id") == model)
    block = _whole(seen.cache[0].get("block_size")) if seen.cache else None
    return Facts(
        url=base,
        model=model,
        version=None if version is None else str(version),
        kv_capacity_tokens=_capacity(seen.cache),
        block_size=block,
        prefix_caching=bool(seen.cache) and seen.cache[0].get("enable_prefix_caching") == "True",
        max_model_len=None if limit is None else int(limit),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        dp=max(1, len(seen.cache)),
    )


def _capacity(cache: tuple[Mapping[str, str], ...]) -> int | None:
    """KV tokens of all ranks: as said, else blocks times their size; None when neither is there."""
    tokens = 0
    for rank in cache:
        said = _whole(rank.get("kv_cache_size_tokens"))
        blocks, size = _whole(rank.get("num_gpu_blocks")), _whole(rank.get("block_size"))
        if said is None and (blocks is None or size is None):
            return None
        tokens += said if said is not None else (blocks or 0) * (size or 0)
    return tokens or None


def _whole(text: str | None) -> int | None:
    return int(float(text)) if text not in {None, "", "None"} else None


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with session.get(url) as answer:
            answer.raise_for_status()
            data = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise DependencyError(f"{url}: {error or type(error).__name__}") from None
    if not isinstance(data, dict):
        raise DependencyError(f"{url}: answered with a {type(data).__name__}, expected an object")
    return data


async def settled(session: aiohttp.ClientSession, url: str, name: str, least: float) -> Scrape:
    """Metrics once a total has reached a value: engines book a request shortly after they have answered it.

    Raises:
        DependencyError: it does not reach it within a few seconds.
    """
    for _ in range(60):
        seen = await scrape(session, url)
        if seen.get(name) >= least:
            return seen
        await asyncio.sleep(0.05)
    raise DependencyError(f"{url}/metrics: {name} stays at {seen.get(name):g}, expected {least:g}")
