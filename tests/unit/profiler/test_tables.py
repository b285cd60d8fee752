"""Reading and writing profiles: errors name file, line and field, and writing is all or nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiler.csvfile import read_table
from profiler.errors import DependencyError, InputError
from profiler.importer import Described, read_dynamo, save_all
from profiler.tables import Profile, find_profiles, fingerprint, load_profile, save_profile

Arrays = dict[str, np.ndarray]


@pytest.fixture
def profile(
    prefill: Arrays,
    decode: Arrays,
    write: Callable[[Arrays, Arrays], Path],
    described: Described,
    tmp_path: Path,
) -> Profile:
    return save_all(read_dynamo(write(prefill, decode), described), tmp_path / "p", overwrite=False)[1]


def test_round_trip(profile: Profile, tmp_path: Path) -> None:
    again = save_profile(tmp_path / "again", profile.meta, profile.samples)
    assert again.meta == profile.meta
    assert fingerprint(again.path) == fingerprint(profile.path)
    for name, column in profile.samples["decode"].items():
        assert column.tobytes() == again.samples["decode"][name].tobytes()
    assert list(profile.frame("decode").columns)[:2] == ["batch", "kv_tokens"]


def test_profiles_are_found(profile: Profile, tmp_path: Path) -> None:
    assert find_profiles(tmp_path) == [tmp_path / "p" / "decode-tp1-dp1", tmp_path / "p" / "prefill-tp1-dp1"]
    assert find_profiles(profile.path) == [profile.path]
    assert find_profiles(tmp_path / "nowhere") == []


def test_tables_that_are_absent_are_none(profile: Profile) -> None:
    assert profile.prefill is profile.transfer is profile.mixed is None


def test_transfer_and_mixed_are_read(profile: Profile) -> None:
    (profile.path / "transfer.csv").write_text("tokens,transfer_ms\n100,2\n1000,8\n")
    (profile.path / "mixed.csv").write_text("prefill_tokens,batch,kv_tokens,iteration_ms\n512,8,900,24\n")
    loaded = load_profile(profile.path)
    assert loaded.transfer is not None
    assert float(loaded.transfer.transfer_ms(550)) == 5.0
    assert loaded.mixed is not None
    assert float(loaded.mixed.iteration_ms(512, 8, 900)) == 24.0


def test_fingerprint_follows_content(profile: Profile) -> None:
    before = fingerprint(profile.path)
    (profile.path / "notes.txt").write_text("not part of it")
    assert fingerprint(profile.path) == before
    file = profile.path / "decode.csv"
    file.write_text(file.read_text() + "\n")
    assert fingerprint(profile.path) != before
    with pytest.raises(InputError, match=r"profile\.json: missing"):
        fingerprint(profile.path.parent)


def test_an_existing_profile_is_not_replaced_unasked(profile: Profile) -> None:
    before = fingerprint(profile.path)
    with pytest.raises(InputError, match="exists"):
        save_profile(profile.path, profile.meta, profile.samples)
    assert fingerprint(profile.path) == before
    save_profile(profile.path, profile.meta, profile.samples, overwrite=True)
    assert not [f for f in profile.path.parent.iterdir() if f.name.startswith(".")]


def test_a_folder_that_is_no_profile_is_never_replaced(profile: Profile, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    with pytest.raises(InputError, match="is not a profile"):
        save_profile(other, profile.meta, profile.samples, overwrite=True)


def test_a_write_that_fails_leaves_the_old_profile(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(profile.path)

    def refuse(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DependencyError, match="No space left"):
        save_profile(profile.path, profile.meta, profile.samples, overwrite=True)
    monkeypatch.undo()
    assert fingerprint(profile.path) == before
    assert sorted(f.name for f in profile.path.parent.iterdir()) == ["decode-tp1-dp1", "prefill-tp1-dp1"]


def test_a_rename_that_fails_brings_the_old_profile_back(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = fingerprint(profile.path), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DependencyError, match="Input/output error"):
        save_profile(profile.path, profile.meta, profile.samples, overwrite=True)
    assert fingerprint(profile.path) == before


def test_a_profile_that_is_being_written_is_not_found(profile: Profile) -> None:
    root = profile.path.parent
    profile.path.rename(root / ".half")
    assert find_profiles(root) == [root / "prefill-tp1-dp1"]
    assert find_profiles(root / ".half") == [root / ".half"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"), ("\n\n", "is empty"), ("isl,ttft_ms\n", "holds no samples"),
        ("isl\n1\n", "line 1, field ttft_ms: missing column"),
        ("isl,ttft_ms,ttft\n1,2,3\n", "line 1, field 'ttft': unknown column; did you mean 'ttft_ms'"),
        ("isl,ttft_ms,isl\n1,2,3\n", "field isl: is there twice"),
        ("isl,ttft_ms\n1,2\n3\n", "line 3: has 1 fields; expected 2"),
        ("isl,ttft_ms\n1,2\n\n3,x\n", "line 4, field ttft_ms: is 'x'; expected a finite number"),
        ("isl,ttft_ms\n1,nan\n", "line 2, field ttft_ms: is 'nan'"),
        ("isl,ttft_ms\n1,1e999\n", "line 2, field ttft_ms: is '1e999'"),
        ("isl,ttft_ms\n1,-2\n", "line 2, field ttft_ms: is '-2'; expected a positive number"),
        ("isl,ttft_ms\n0,2\n", "line 2, field isl: is '0'; expected a positive number"),
        ("isl,ttft_ms\n1_0,2\n", "line 2, field isl: is '1_0'"), ("isl,ttft_ms\n,2\n", "field isl: is ''"),
        ("isl,ttft_ms,repeat\n1,2,0.5\n", "field repeat: is '0.5'; expected a whole number"),
        ("isl,ttft_ms\n1,2\n1,3\n", "line 3, field isl: the same isl, repeat as line 2"),
        ("isl,ttft_ms\n1,2\x00\n", "line 2"), ('isl,ttft_ms\n"1,2\n', "is not CSV"),
    ],
)  # fmt: skip
def test_bad_tables_name_line_and_field(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "prefill.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_table(file, "prefill")
    assert str(caught.value).startswith(str(file))


def test_binary_and_missing_files(tmp_path: Path) -> None:
    file = tmp_path / "prefill.csv"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not text"):
        read_table(file, "prefill")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "none.csv", "prefill")


def test_repeats_of_a_point_are_welcome(tmp_path: Path) -> None:
    file = tmp_path / "prefill.csv"
    file.write_text("isl,ttft_ms,repeat\n1,2,0\n1,3,1\n")
    assert read_table(file, "prefill")["repeat"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "field schema_version: is 2; expected 1"),
        ({"kv_capacity_token": 1}, "kv_capacity_token: unknown field; did you mean 'kv_capacity_tokens'"),
        ({"limits": {"max_num_seq": 1}}, "limits.max_num_seq: unknown field; did you mean 'max_num_seqs'"),
        ({"role": "both"}, "field role: is 'both'"), ({"tp": 0}, "field tp: is 0"),
        ({"tp": None}, "field tp: is None"), ({"model": {"name": "x"}}, "field model.dtype: missing"),
    ],
)  # fmt: skip
def test_bad_fields_are_named(profile: Profile, change: dict[str, object], message: str) -> None:
    file = profile.path / "profile.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        load_profile(profile.path)
    assert str(caught.value).startswith(str(file))


def test_a_role_needs_its_table(profile: Profile) -> None:
    (profile.path / "decode.csv").unlink()
    with pytest.raises(InputError, match=r"decode\.csv: missing, and a profile of role decode needs it"):
        load_profile(profile.path)


def test_rows_that_are_all_suspect_are_refused(profile: Profile) -> None:
    (profile.path / "decode.csv").write_text("batch,kv_tokens,context_tokens,itl_ms,suspect\n1,9,9,5,1\n")
    with pytest.raises(InputError, match="every row is marked suspect"):
        load_profile(profile.path)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_profile(tmp_path / "none")
    with pytest.raises(InputError, match=r"profile\.json: cannot be read"):
        load_profile(tmp_path)


def test_tables_of_recorded_runs_are_theirs_alone(profile: Profile, tmp_path: Path) -> None:
    beside = tmp_path / "runs" / "tp1"
    own = beside / "profiles" / "decode-tp1-dp1"
    shutil.copytree(profile.path, own)
    general = find_profiles(tmp_path / "p")
    assert find_profiles(tmp_path) == [*general, own]
    for name in ("low.json", "low.csv"):
        (beside / name).write_text("", encoding="utf-8")
    assert find_profiles(tmp_path) == general
    assert find_profiles(beside / "profiles") == [own]
