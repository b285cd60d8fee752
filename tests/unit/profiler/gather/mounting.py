"""A ConfigMap as the kubelet mounts it: a hidden folder of its time, a link to it, and links to what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def mount(at: Path, data: Mapping[str, str], items: Sequence[Mapping[str, str]]) -> Path:
    """Mount data; `items` place keys in folders."""
    hidden = at / "..2026_11_23_03_15_00.123456789"
    for item in items:
        file = hidden / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data[item["key"]], encoding="utf-8")
    (at / "..data").symlink_to(hidden.name)
    for top in {Path(item["path"]).parts[0] for item in items}:
        (at / top).symlink_to(Path("..data") / top)
    return at
