"""No content of a file gives anything but samples or an InputError."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from profiler.csvfile import COLUMNS, read_table, table_text
from profiler.dynamo import find_raw
from profiler.errors import InputError
from profiler.schema import TableName, parse_meta

_cells = st.one_of(
    st.sampled_from(["", "0", "1", "nan", "inf", "-1", "1e400", '"', "1_0", "\x00", "0x1", "1e-320"]),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=5),
)
_names: st.SearchStrategy[TableName] = st.sampled_from(["prefill", "decode", "mixed", "transfer"])


@contextmanager
def suppress_input_error(named: str) -> Iterator[None]:
    """Let an InputError pass that names the file; anything else fails the test."""
    try:
        yield
    except InputError as error:
        if named not in str(error):
            raise


def _file(name: str, content: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@given(table=_names, content=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes(table: TableName, content: bytes) -> None:
    with suppress_input_error("t.csv"):
        read_table(_file("t.csv", content), table)


@given(data=st.data(), table=_names)
@settings(max_examples=200, deadline=None)
def test_any_cells_under_the_right_header(data: st.DataObject, table: TableName) -> None:
    names = [column.name for column in COLUMNS[table]]
    row = st.lists(_cells, min_size=len(names) - 1, max_size=len(names) + 1).map(",".join)
    rows = data.draw(st.lists(row, max_size=4))
    text = "\n".join([",".join(names), *rows])
    with suppress_input_error("t.csv"):
        samples = read_table(_file("t.csv", text.encode("utf-8", "replace")), table)
        again = read_table(_file("t.csv", table_text(table, samples).encode()), table)
        for name in names:
            assert samples[name].tobytes() == again[name].tobytes()


@given(st.one_of(st.binary(max_size=200).map(lambda b: b.decode("latin-1")), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["schema_version", "model", "gpu", "tp", "limits", "errors", "source", "x"]), inner
    ),
).map(str)))  # fmt: skip
@example("[" * 100_000)
@example("9" * 5000)
@settings(max_examples=100, deadline=None)
def test_any_metadata(text: str) -> None:
    with suppress_input_error("profile.json"):
        parse_meta(text, Path("profile.json"))


@given(content=st.binary(max_size=300), name=st.sampled_from(["npz", "json"]))
@settings(max_examples=100, deadline=None)
def test_any_dynamo_file(content: bytes, name: str) -> None:
    where = "selected_prefill_interpolation/raw_data.npz" if name == "npz" else "prefill_raw_data.json"
    file = _file(where, content)
    with suppress_input_error("raw_data"):
        find_raw(file.parent.parent if name == "npz" else file.parent, "prefill")
