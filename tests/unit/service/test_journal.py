"""The journal survives crashes, full disks and rotation, and finds every record that is still there."""

import errno
import json
import os
from pathlib import Path

import pytest

from planner.service import journal as module
from planner.service.history import History
from planner.service.journal import MOST_PENDING, Journal
from tests.unit.service.conftest import NOON, FakeEyes, Rigging


def opened(path: Path, max_bytes: int = 1 << 20, keep: int = 2) -> Journal:
    return Journal(path, max_bytes=max_bytes, keep=keep, index=1000)


def test_lines_are_on_the_disk_at_once_and_are_found(tmp_path: Path) -> None:
    journal = opened(tmp_path / "deep" / "j.jsonl")
    for k in range(3):
        journal.append(k, f'{{"k":{k}}}')
    assert journal.path.read_text() == '{"k":0}\n{"k":1}\n{"k":2}\n'
    assert [journal.read(k) for k in (0, 2, 3)] == ['{"k":0}', '{"k":2}', None]


def test_rotation_keeps_so_many_files_and_reads_across_them(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j", max_bytes=25, keep=2)
    lines = {k: f"{k:09d}" for k in range(9)}
    for k, line in lines.items():
        journal.append(k, line)
    # Two lines of ten bytes a file: 0 to 3 are gone.
    assert sorted(f.name for f in tmp_path.iterdir()) == ["j", "j.1", "j.2"]
    assert (tmp_path / "j.2").read_text() == f"{4:09d}\n{5:09d}\n"
    assert [k for k in lines if journal.read(k) == lines[k]] == [4, 5, 6, 7, 8]
    assert all(journal.read(k) is None for k in range(4))
    journal.close()
    again = opened(tmp_path / "j", max_bytes=25, keep=2)
    again.append(9, f"{9:09d}")
    newest = list(again.newest_first())
    assert [int(line) for _, line in newest] == [9, 8, 7, 6, 5, 4]
    for place, line in newest:
        again.remember(int(line), place)
    again.append(10, f"{10:09d}")
    assert [again.read(k) for k in (5, 6, 10)] == [None, f"{6:09d}", f"{10:09d}"]


def test_without_rotated_files_the_old_one_goes(tmp_path: Path) -> None:
    journal = opened(tmp_path / "j", max_bytes=15, keep=0)
    for k in range(3):
        journal.append(k, f"{k:09d}")
    assert [f.name for f in tmp_path.iterdir()] == ["j"]
    assert (journal.read(1), journal.read(2)) == (None, f"{2:09d}")


@pytest.mark.parametrize("torn", ["x", '{"half":', "y" * 5000])
def test_a_torn_last_line_is_cut_off_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    path = tmp_path / "j"
    path.write_text("first line\nsecond\n" + torn)
    journal = opened(path)
    journal.append(1, "third")
    assert path.read_text() == "first line\nsecond\nthird\n"
    assert f"{len(torn)} bytes cut off" in caplog.text
    assert torn[:50] in caplog.text
    assert [line for _, line in journal.newest_first()] == [b"third", b"second", b"first line"]


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_lines_backwards_whatever_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    lines = [b"a", b"", b"long enough for several blocks", b"b" * 9, b"", b"z"]
    path = tmp_path / "j"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    journal = opened(path)
    journal.open()
    found = list(journal.newest_first())
    assert [line for _, line in found] == lines[::-1]
    content = path.read_bytes()
    assert all(content[p.offset : p.offset + p.length] == line + b"\n" for p, line in found)


def test_a_full_disk_is_named_and_records_wait(rig: Rigging) -> None:
    made = rig(service={"journal": "/dev/full"})
    made.ticks(3)
    assert made.loop.faults.last["journal"].text == "journal: No space left on device"  # type: ignore[index]
    assert made.loop.journal.pending == 3
    assert len(made.graph.applied) == 3
    newest = made.loop.history.newest
    assert newest is not None
    # What waits can be read all the same.
    line = made.loop.journal.read(newest.number)
    assert line is not None
    assert json.loads(line)["graph"] == "chat"
    assert b"sla_planner_journal_working" in made.loop.metrics.text()
    assert 'sla_planner_journal_working{graph="chat",model="llama"} 0.0' in made.loop.metrics.text().decode()


def test_a_line_that_was_written_in_part_is_written_again_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path / "j")
    journal.append(1, "one")
    write, room = os.write, [4]

    def nearly_full(file: int, content: memoryview) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(file, bytes(content[: room[0]]))
        room[0] -= done
        return done

    monkeypatch.setattr(module.os, "write", nearly_full)
    for k in (2, 3):
        with pytest.raises(OSError, match="No space left"):
            journal.append(k, f"line {k}")
        # Readers meet no half line while the disk is full.
        assert journal.path.read_text() == "one\n"
    assert journal.pending == 2
    monkeypatch.setattr(module.os, "write", write)
    journal.append(4, "line 4")
    assert journal.path.read_text() == "one\nline 2\nline 3\nline 4\n"
    assert journal.read(3) == "line 3"


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = opened(tmp_path / "file" / "j")
    for k in range(MOST_PENDING + 5):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            journal.append(k, "x")
    assert (journal.pending, journal.lost) == (MOST_PENDING, 5)


def test_two_planners_do_not_write_one_journal(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "j"), opened(tmp_path / "j")
    one.append(1, "one")
    with pytest.raises(OSError, match="another process writes to it"):
        two.append(1, "two")
    one.close()
    two.append(2, "three")
    assert (tmp_path / "j").read_text() == "one\ntwo\nthree\n"


def test_history_is_read_back_from_the_journal(rig: Rigging, caplog: pytest.LogCaptureFixture) -> None:
    made = rig(eyes=FakeEyes(rate_rps=30.0), service={"journal_max_mib": 0.05, "journal_keep": 50}).ticks(30)
    live = [entry.json for entry in made.loop.history.page(None, 100)]
    made.loop.close()
    path = made.loop.journal.path
    assert path.with_name(f"{path.name}.3").exists()
    with path.open("a") as file:
        file.write('not a record\n{"graph":"other"}\n')
    again = rig(graph=made.graph, service={"journal_max_mib": 0.05, "journal_keep": 50})
    loop = again.loop
    loop.journal.open()
    again.ticks(1)
    loop.history.preload(loop.journal, "chat", NOON + 31 * 15.0)
    entries = loop.history.page(None, 100)
    assert [entry.json for entry in entries[:-1]] == live
    assert loop.history.complete
    assert "1 lines are no records" in caplog.text
    line = loop.journal.read(entries[0].number)
    assert line is not None
    assert round(json.loads(line)["decision"]["at_s"] * 1000) == entries[0].number
    # Only what lies within the span is kept.
    short = History(span_s=120.0)
    short.preload(loop.journal, "chat", NOON + 31 * 15.0)
    assert len(short) == 9


def test_history_pages_and_bounds(rig: Rigging) -> None:
    made = rig(service={"history_hours": 0.05}).ticks(40)
    entries = made.loop.history.page(None, 1000)
    # Three minutes hold twelve ticks and the one on the border, in steps of a whole tick.
    assert 12 <= len(entries) <= 14
    ids = [entry.number for entry in entries]
    assert [e.number for e in made.loop.history.page(ids[3], 2)] == ids[4:6]
    assert [e.number for e in made.loop.history.page(None, 2)] == ids[-2:]
    assert made.loop.history.page(ids[-1], 5) == []
