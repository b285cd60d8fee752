"""`profiler gather`: profiles into a ConfigMap, as a file or on the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler import console
from profiler.atomic import write_atomic
from profiler.console import Output
from profiler.errors import DependencyError, InputError

if TYPE_CHECKING:
    from profiler.gather.bundle import Bundle
    from profiler.job.status import Status

# Imports inside the functions: numpy and the cluster's client would slow --help down.
# ruff: noqa: PLC0415


class RoleName(StrEnum):
    """Roles of profiles."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


def gather(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Profiles, or folders above them.")],
    configmap: Annotated[str, typer.Option(metavar="NAME", help="Of the ConfigMap.")],
    namespace: Annotated[str | None, typer.Option(help="Of the ConfigMap; default: the pod's or kubeconfig's.")] = None,
    role: Annotated[list[RoleName] | None, typer.Option(help="Only profiles of this role; repeat.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Write the ConfigMap; - is stdout.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Set its keys on the cluster; others stay.")] = False,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write the volume that mounts it as folders.")
    ] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Bundle finished profiles into a ConfigMap, for `planner run` to mount as its profiles."""
    from profiler.folders import load_profiles
    from profiler.gather.bundle import bundle

    if out is None and not apply:
        raise InputError("is missing", expected="--out FILE.yaml, --apply, or both", field="--out")
    made = bundle(load_profiles(folders, field="DIR"), [one.value for one in role or ()])
    if items is not None:
        _write(items, {"name": "profiles", "configMap": {"name": configmap, "items": made.items}})
    if apply:
        _apply(made, configmap, namespace)
    if out is not None:
        _write(out, made.manifest(configmap, namespace))
        if out == Path("-"):
            return
    if output is Output.JSON:
        answer = {"configmap": configmap, "bytes": made.size, "items": made.items, "applied": apply}
        typer.echo(json.dumps(answer, indent=2))
    else:
        _show(made, configmap)


def gather_into(configmap: str, folders: Sequence[Path]) -> None:
    """Set the keys of these profiles in a ConfigMap of the own namespace.

    Raises:
        InputError: a profile cannot be read, or they are more than a ConfigMap holds.
        DependencyError: the API server refused or did not answer.
    """
    from profiler.gather.bundle import bundle
    from profiler.tables import load_profile

    made = bundle([load_profile(folder) for folder in folders])
    _apply(made, configmap, None)
    console.stderr.print(f"gathered {len(folders)} profiles into ConfigMap {configmap}", soft_wrap=True, markup=False)


@contextmanager
def shown_in(configmap: str | None, key: str) -> Iterator[Callable[[Status], None] | None]:
    """What shows a run's status in a ConfigMap; None without one."""
    if configmap is None:
        yield None
        return
    from profiler.gather.announce import Announcer
    from profiler.gather.cluster import ConfigMaps

    def say(text: str) -> None:
        console.stderr.print(text, soft_wrap=True, markup=False)

    with Announcer(ConfigMaps(), configmap, key, say) as announcer:
        yield lambda status: announcer.tell({**asdict(status), "errors": dict(status.errors)})


def _apply(made: Bundle, configmap: str, namespace: str | None) -> None:
    from profiler.gather.bundle import LABELS, check_size
    from profiler.gather.cluster import ConfigMaps

    cluster = ConfigMaps(namespace)
    # What other pods have put there counts, too.
    check_size({**(cluster.read(configmap) or {}), **made.data})
    cluster.merge(configmap, made.data, LABELS)


def _show(made: Bundle, configmap: str) -> None:
    from rich.table import Table

    from profiler.gather.bundle import MOST_BYTES, kib

    table = Table("key", "mounted as", "size", title=f"{configmap}: {kib(made.size)} of {kib(MOST_BYTES)}")
    for key, place in made.places.items():
        table.add_row(key, place, kib(len(made.data[key].encode())))
    console.stdout.print(table)


def _write(path: Path, data: object) -> None:
    import yaml

    text = yaml.dump(data, Dumper=_block_dumper(), sort_keys=False, allow_unicode=True, width=10**9)
    if path == Path("-"):
        typer.echo(text, nl=False)
        return
    try:
        write_atomic(path, text)
    except OSError as error:
        raise DependencyError(f"{path}: cannot be written: {error.strerror or error}") from None


def _block_dumper() -> type:
    """Files as blocks of their own lines, so that people can read the ConfigMap."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return Dumper
