"""Parts of the page: escaped text, tables, and figures in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def e(text: object) -> str:
    """Escaped; everything that a user or an engine named goes through here."""
    return html.escape(str(text), quote=True)


def section(title: str, inside: str, *, name: str | None = None) -> str:
    """A part of the page."""
    id_ = f' id="{name}"' if name else ""
    return f"<section{id_}><h2>{e(title)}</h2>{inside}</section>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values; names and values are escaped here."""
    listed = "".join(f"<dt>{e(name)}</dt><dd>{e(value)}</dd>" for name, value in rows)
    return f"<dl>{listed}</dl>" if listed else ""


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int] = (), texts: Sequence[int] = ()
) -> str:
    """A table whose cells are HTML already; the first cell of a row names it.

    Args:
        heads: of the columns.
        rows: of cells; one that begins with `<td` is taken as a whole cell.
        words: places of the columns that hold sentences.
        texts: places of other columns whose heads stand to the left.
    """
    head = "".join(
        f'<th scope="col"{" class=text" if i == 0 or i in words or i in texts else ""}>{e(name)}</th>'
        for i, name in enumerate(heads)
    )
    body = ""
    for first, *rest in rows:
        cells = "".join(
            cell if cell.startswith("<td") else f"<td{' class=words' if i in words else ''}>{cell}</td>"
            for i, cell in enumerate(rest, start=1)
        )
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tile(title: str, big: str, under: str = "") -> str:
    """A figure that counts; `big` is HTML."""
    return (
        f'<div class="tile"><b>{e(title)}</b><span class="big">{big}</span><span class="under">{e(under)}</span></div>'
    )


def percent(share: float, *, sign: bool = False) -> str:
    """A share with one decimal."""
    return f"{100 * share:{'+' if sign else ''}.1f} %"


def ms(value: float) -> str:
    """Milliseconds with three figures or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def count(number: int, noun: str) -> str:
    """`1 layout`, `2 layouts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def flat(value: Any) -> str:
    """A value of `run.json` in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {flat(below)}" for key, below in value.items())
    if isinstance(value, list):
        return ", ".join(flat(below) for below in value) or "none"
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
