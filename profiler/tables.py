"""A profile on disk: one folder with `profile.json` and its tables as CSV."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.csvfile import COLUMNS, Samples, read_table, table_text
from profiler.curve import Curve, PrefillCurve, TransferCurve
from profiler.engine_side import engine_curve, front_end, has_engine_clock, lone
from profiler.errors import DependencyError, InputError
from profiler.mixed import MixedTable
from profiler.roofline import Roofline
from profiler.schema import ProfileMeta, Role, TableError, TableName, parse_meta
from profiler.streaming import engine_itl_ms, streaming_limit
from profiler.surface import DecodeSurface

if TYPE_CHECKING:
    import pandas as pd

META_FILE = "profile.json"
_NO_TIME_MS = 1e-6
#: A folder of this name beside runs, or above them, holds the profiles of the machine that they were recorded on.
OWN_PROFILES = "profiles"
_NEEDED: Mapping[Role, tuple[TableName, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode",),
    "aggregated": ("prefill", "decode"),
}


@dataclass(frozen=True)
class Profile:
    """A loaded profile.

    Attributes:
        path: its folder.
        meta: what `profile.json` says.
        samples: raw samples by table, columns as arrays.
    """

    path: Path
    meta: ProfileMeta
    samples: Mapping[TableName, Samples]

    def __reduce__(self) -> tuple[Callable[[Path], Profile], tuple[Path]]:
        """Other processes read the folder again: its read-only columns and cached tables do not travel."""
        return load_profile, (self.path,)

    @cached_property
    def roofline(self) -> Roofline | None:
        """Speed of light of the worker; None when the model's shape or the GPU is not known."""
        return Roofline.of(self.meta)

    @cached_property
    def prefill(self) -> PrefillCurve | None:
        """TTFT of lone prompts without a prefix hit against ISL; None when the profile has no such table."""
        rows = self.samples.get("prefill")
        if rows is None:
            return None
        kept = lone(rows)
        return self._prefill_curve(rows["isl"][kept], rows["ttft_ms"][kept])

    @cached_property
    def prefill_engine(self) -> PrefillCurve | None:
        """As `prefill`, but by the engine's own clock, from scheduled to the first token, where the table has that."""
        rows = self.samples.get("prefill")
        if rows is None or not has_engine_clock(rows):
            return self.prefill
        return engine_curve(rows, self._prefill_curve)

    @cached_property
    def front_end(self) -> tuple[float, float]:
        """TTFT outside the engine's loop: ms, and ms per prompt token; 0 where the table has not the engine's clock."""
        rows = self.samples.get("prefill")
        return (0.0, 0.0) if rows is None or not has_engine_clock(rows) else front_end(rows)

    def _prefill_curve(self, isl: ArrayLike, ms: ArrayLike) -> PrefillCurve:
        return PrefillCurve(isl, ms, self.roofline, self.meta.limits.max_cudagraph_tokens)

    @cached_property
    def decode(self) -> DecodeSurface | None:
        """ITL against batch and KV tokens, suspect rows left out; None when the profile has no such table.

        Of the engine's iterations, and never less than the front end needs to stream a token of each request.
        """
        rows = self.decode_rows
        if rows is None:
            return None
        limit = streaming_limit(self.samples["decode"])
        stream_ms = 0.0 if limit is None else 1.0 / limit
        batch, kv, itl = rows["batch"], rows["kv_tokens"], rows["itl_ms"]
        return DecodeSurface(batch, kv, itl, self.roofline, self.meta.kv_capacity_tokens, stream_ms)

    @cached_property
    def decode_rows(self) -> Samples | None:
        """Rows of the decode table that `decode` is made of, `itl_ms` that of the engine; None without such a table.

        Suspect rows are not among them, nor those whose front end may have been behind an engine that was not asked.
        """
        rows = self.samples.get("decode")
        if rows is None:
            return None
        itl = engine_itl_ms(rows, streaming_limit(rows))
        good = np.isfinite(itl)
        if "suspect" in rows:
            good &= rows["suspect"] == 0
        return {name: column[good] for name, column in ({**rows, "itl_ms": itl}).items()}

    @cached_property
    def transfer(self) -> TransferCurve | None:
        """Hand-off time against tokens, from a prefill worker of the profile's own TP or of the nearest measured one.

        None when the profile has no such table.
        """
        found = self.transfer_from(self.meta.tp)
        return None if found is None else found[0]

    def transfer_from(self, prefill_tp: int) -> tuple[TransferCurve, int] | None:
        """Hand-off time against tokens, from a prefill worker of this TP.

        Where that was not measured, from the TP that is nearest as a ratio; of two equally near ones the smaller, over
        whose fewer links a hand-off takes longer.

        Returns:
            The curve and the TP that it was measured from; None when the profile has no such table.
        """
        rows = self.samples.get("transfer")
        if rows is None:
            return None
        from_tp = self.handed_from(rows)
        there = sorted({int(tp) for tp in from_tp})
        nearest = min(there, key=lambda tp: max(tp / prefill_tp, prefill_tp / tp))
        kept = from_tp == nearest
        return TransferCurve(rows["tokens"][kept], rows["transfer_ms"][kept]), nearest

    def post_from(self, prefill_tp: int) -> Curve | None:
        """What the decode engine's loop posts a hand-off's copies for, ms, against tokens, from a prefill worker of TP.

        None where the engine did not tell.
        """
        rows = self.samples.get("transfer")
        if rows is None or "post_ms" not in rows:
            return None
        kept = (self.handed_from(rows) == prefill_tp) & np.isfinite(rows["post_ms"])
        # A loop that copies nothing itself may say 0, which no curve goes through.
        return Curve(rows["tokens"][kept], np.maximum(rows["post_ms"][kept], _NO_TIME_MS)) if kept.any() else None

    def handed_from(self, rows: Samples) -> NDArray[np.float64]:
        """TP of the prefill worker of each row of a transfer table, shape (rows,); the own one where it is not told."""
        told = rows.get("prefill_tp", np.zeros(len(rows["tokens"])))
        return np.where(told > 0, told, float(self.meta.tp))

    @cached_property
    def mixed(self) -> MixedTable | None:
        """Iterations that hold prefill and decode; None when the profile has no such table."""
        rows = self.samples.get("mixed")
        if rows is None:
            return None
        return MixedTable(rows["prefill_tokens"], rows["batch"], rows["kv_tokens"], rows["iteration_ms"])

    def frame(self, table: TableName) -> pd.DataFrame:
        """Raw samples of a table as a data frame (pandas is imported on the first call).

        Raises:
            KeyError: the profile has no such table.
        """
        import pandas as pd  # noqa: PLC0415 - takes longer to import than the rest of the package

        return pd.DataFrame(dict(self.samples[table]))

    def leave_one_out(self) -> dict[TableName, TableError]:
        """Leave-one-out error of the tables that have enough points for one; of hand-offs, that of `transfer`."""
        tables: dict[TableName, PrefillCurve | DecodeSurface | TransferCurve | None] = {
            "prefill": self.prefill,
            "decode": self.decode,
            "transfer": self.transfer,
        }
        errors = {name: table.leave_one_out.summary for name, table in tables.items() if table is not None}
        return {name: error for name, error in errors.items() if error is not None}


def load_profile(path: Path | str) -> Profile:
    """Load a profile's folder.

    Raises:
        InputError: a file, a line or a field is missing or wrong; names it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("is not a folder", expected=f"a folder with {META_FILE}", source=folder)
    file = folder / META_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=file) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="JSON in UTF-8", source=file) from None
    meta = parse_meta(text, file)
    samples = {name: read_table(folder / f"{name}.csv", name) for name in COLUMNS if (folder / f"{name}.csv").exists()}
    return _checked(Profile(folder, meta, samples))


def _checked(profile: Profile) -> Profile:
    for name in _NEEDED[profile.meta.role]:
        if name not in profile.samples:
            problem = f"missing, and a profile of role {profile.meta.role} needs it"
            raise InputError(problem, source=profile.path / f"{name}.csv")
    rows = profile.samples.get("prefill")
    if rows is not None and "batch" in rows and "prefix_hit_tokens" in rows:
        lone = (rows["batch"] == 1) & (rows["prefix_hit_tokens"] == 0)
        if not lone.any():
            expected = "at least one lone prompt (batch 1) without a prefix hit"
            raise InputError("holds none to build on", expected=expected, source=profile.path / "prefill.csv")
    decode = profile.samples.get("decode")
    if decode is not None and "suspect" in decode and (decode["suspect"] == 1).all():
        source = profile.path / "decode.csv"
        raise InputError("every row is marked suspect", expected="at least one to build on", source=source)
    return profile


def find_profiles(root: Path | str) -> list[Path]:
    """Folders at or below `root` that hold a `profile.json`, sorted.

    Tables beside recorded runs, in a folder `profiles`, are of these runs' machine alone and are left out.
    """
    base = Path(root)
    files = (folder / META_FILE for folder in _folders(base))
    return sorted(file.parent for file in files if file.is_file() and not _is_of_runs(file, base))


def _folders(base: Path) -> Iterator[Path]:
    """A folder and those below it, but for hidden ones, which hold profiles that are being written.

    Links are followed, each folder once: a mounted ConfigMap is links into a hidden folder and nothing else.
    """
    seen: set[Path] = set()
    for folder, below, _ in os.walk(base, followlinks=True):
        real = Path(folder).resolve()
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            seen.add(real)
            yield Path(folder)


def _is_of_runs(file: Path, base: Path) -> bool:
    """Whether it lies in a folder of tables below `base` that has recorded runs beside it."""
    folders = [one for one in file.parents if one != base and one.is_relative_to(base) and one.name == OWN_PROFILES]
    return any(run.with_suffix(".csv").is_file() for one in folders for run in one.parent.glob("*.json"))


def fingerprint(path: Path | str) -> str:
    """SHA-256 (hex) over the names and contents of a profile's files; the same on every machine.

    Raises:
        InputError: the folder holds no readable profile.
    """
    folder = Path(path)
    digest = hashlib.sha256()
    try:
        files = sorted(f for f in folder.iterdir() if f.name == META_FILE or (f.stem in COLUMNS and f.suffix == ".csv"))
        for file in files:
            content = file.read_bytes()
            # The length keeps a byte moved from one file to the next from going unseen.
            digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=folder) from None
    if not any(file.name == META_FILE for file in files):
        raise InputError("missing", source=folder / META_FILE)
    return digest.hexdigest()


def save_profile(
    path: Path | str, meta: ProfileMeta, samples: Mapping[TableName, Samples], *, overwrite: bool = False
) -> Profile:
    """Write a profile at once: whoever looks sees the old folder, or none, or the whole new one.

    Leave-one-out errors are computed here and stored in `profile.json`.

    Args:
        path: the profile's folder.
        meta: its `profile.json`.
        samples: raw samples by table.
        overwrite: replace a profile that is there.

    Returns:
        The profile as written.

    Raises:
        InputError: the folder exists and `overwrite` is off, or the role's table is missing.
        DependencyError: the file system refused.
    """
    folder = Path(path)
    if folder.exists() and not overwrite:
        raise InputError("exists", expected="a new folder, or --overwrite", source=folder)
    if folder.exists() and not (folder / META_FILE).is_file():
        raise InputError("exists and is not a profile", expected="a profile or a new folder", source=folder)
    profile = _checked(Profile(folder, meta, samples))
    meta = meta.model_copy(update={"errors": profile.leave_one_out()})
    texts = {f"{name}.csv": table_text(name, rows) for name, rows in samples.items()}
    # A field that older profiles lack is written where it says something, so that their fingerprints stay.
    unsaid = None if meta.expert_parallel else {"expert_parallel"}
    texts[META_FILE] = meta.model_dump_json(indent=2, exclude=unsaid) + "\n"
    try:
        replace_folder(folder, texts)
    except OSError as error:
        raise DependencyError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return load_profile(folder)


def replace_folder(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write `files` (names may hold folders) to a temporary folder beside `folder`, then rename it."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        for name, content in files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(work)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
