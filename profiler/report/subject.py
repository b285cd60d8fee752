"""What a report is about: a run with what became of each layout, or profiles alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.compare import expert_parallel
from profiler.errors import InputError
from profiler.folders import load_profiles
from profiler.schema import TableName, load_json
from profiler.tables import Profile

RUN_FILE = "run.json"


@dataclass(frozen=True, eq=False)
class Layout:
    """The profiles of one layout of one model, GPU and engine.

    A run writes what it measured of a layout into a profile for every role, so that the same table is in several.
    """

    name: str
    profiles: tuple[Profile, ...]

    @property
    def tables(self) -> list[tuple[TableName, Profile]]:
        """Each table once, of the first profile that holds it; another one of other samples, too."""
        found: list[tuple[TableName, Profile]] = []
        names: tuple[TableName, ...] = ("prefill", "decode", "mixed", "transfer")
        for name in names:
            mine: list[Profile] = []
            for profile in self.profiles:
                if name in profile.samples and not any(_same(profile, other, name) for other in mine):
                    mine.append(profile)
            found += [(name, profile) for profile in mine]
        return found

    @property
    def gpu_minutes(self) -> tuple[float, float] | None:
        """Start-up and measuring, in minutes of one GPU; None where the profiles do not say.

        Profiles of several roles share their samples and say the same cost; it counts once.
        """
        costs = {(c.startup_gpu_minutes, c.measuring_gpu_minutes) for p in self.profiles if (c := p.meta.cost)}
        if not costs:
            return None
        return sum(start for start, _ in costs), sum(measuring for _, measuring in costs)


def _same(a: Profile, b: Profile, table: TableName) -> bool:
    first, second = a.samples[table], b.samples[table]
    return set(first) == set(second) and all(first[key].tobytes() == second[key].tobytes() for key in first)


@dataclass(frozen=True, eq=False)
class Run:
    """`run.json`; what a version of the program did not write is empty.

    Attributes:
        folder: of the run.
        data: the whole file.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def layouts(self) -> Sequence[Mapping[str, Any]]:
        """What became of each layout."""
        return [one for one in _list(self.data.get("layouts")) if isinstance(one, dict)]

    @property
    def price_per_gpu_hour(self) -> float | None:
        """As it was asked for."""
        price = self.section("settings").get("gpu_price_per_hour")
        return float(price) if isinstance(price, int | float) and not isinstance(price, bool) else None

    def section(self, name: str) -> Mapping[str, Any]:
        """A mapping of the file; empty where there is none."""
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def gpu_minutes(self) -> float:
        """Of all layouts, failed ones included."""
        minutes = [one.get("gpu_minutes") for one in self.layouts]
        return float(sum(m for m in minutes if isinstance(m, int | float)))


@dataclass(frozen=True, eq=False)
class Subject:
    """What the page tells of.

    Attributes:
        path: that was named.
        layouts: with profiles.
        run: None for profiles alone.
    """

    path: Path
    layouts: tuple[Layout, ...]
    run: Run | None

    @property
    def profiles(self) -> list[Profile]:
        """All of them."""
        return [profile for layout in self.layouts for profile in layout.profiles]


def read_subject(path: Path) -> Subject:
    """A run's folder, a profile's, or a folder with profiles below it.

    A run may have no profile yet, or never have got to one; the page then says so.

    Raises:
        InputError: the folder holds neither, or a file in it is wrong.
    """
    if not path.is_dir():
        raise InputError("is not a folder", expected="a run or a profile", source=path)
    file = path / RUN_FILE
    if not file.is_file():
        return Subject(path, _grouped(load_profiles([path], field="DIR")), None)
    try:
        data = load_json(file.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", source=file) from None
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}", expected="the record of a run", source=file)
    run = Run(path, data)
    named = [Path(name) for one in run.layouts for name in _list(one.get("profiles")) if isinstance(name, str)]
    # They lie beside the run's folder; where the run says a place of its own, that counts if it is there.
    folders = [folder for name in named if (folder := path.parent / name).is_dir()]
    profiles = load_profiles(folders, field="DIR") if folders else []
    return Subject(path, _grouped(profiles), run)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _grouped(profiles: Sequence[Profile]) -> tuple[Layout, ...]:
    groups: dict[tuple[str, ...], list[Profile]] = {}
    for profile in profiles:
        meta = profile.meta
        words = f"TP{meta.tp}" + (f" DP{meta.dp}" if meta.dp > 1 else "") + (" EP" if expert_parallel(meta) else "")
        kind = meta.model.name, meta.gpu.name, meta.engine.version or "", f"{meta.tp:06}-{meta.dp:06}", words
        groups.setdefault(kind, []).append(profile)
    several = len({key[:3] for key in groups}) > 1

    def name(key: tuple[str, ...]) -> str:
        return f"{key[0]}, {key[1]}, {key[2] or 'engine version unknown'}, {key[4]}" if several else key[4]

    return tuple(Layout(name(key), tuple(groups[key])) for key in sorted(groups))
