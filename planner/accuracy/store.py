"""What profiles keep of the runs that they were compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.accuracy.compare import Comparison
from profiler.atomic import write_atomic
from profiler.errors import DependencyError
from profiler.schema import Validation
from profiler.tables import META_FILE, Profile


def store(comparisons: Sequence[Comparison]) -> list[Path]:
    """Put each comparison into the `profile.json` of every profile that it used, in place of an older one of its run.

    Returns:
        The files that were written.

    Raises:
        DependencyError: one cannot be written; those before it are.
    """
    of: dict[Path, tuple[Profile, dict[str, Validation]]] = {}
    for comparison in comparisons:
        for profile in comparison.matched.profiles:
            kept = {one.run: one for one in profile.meta.validation}
            _, runs = of.setdefault(profile.path, (profile, kept))
            runs[comparison.name] = comparison.validation()
    written = []
    for folder, (profile, runs) in of.items():
        validation = tuple(runs[name] for name in sorted(runs))
        # Fields that the file does not have stay out of it.
        meta = profile.meta.model_copy(update={"validation": validation})
        text = meta.model_dump_json(indent=2, exclude_unset=True) + "\n"
        try:
            write_atomic(folder / META_FILE, text)
        except OSError as error:
            raise DependencyError(f"{folder / META_FILE}: cannot be written: {error.strerror or error}") from None
        written.append(folder / META_FILE)
    return written
