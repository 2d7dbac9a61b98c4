from __future__ import annotations

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assetbatch.cli import trouble_state as told
from assetbatch.cli.trouble_state import Cause, End, Telling, review
from assetbatch.config import state_folder, whereabouts

KEY_REFUSED = Cause("a", "key_refused: the API refused the key", fails=True)
DATABASE_AWAY = Cause("b", "no connection", fails=True)
QUEUE_FULL = Cause("c", "the queue is full: 3 assets did not fit", fails=False)
DEAD_LETTER = Cause("d", "1 of 2 assets are dead letters now", fails=True, lasts=False)
MINUTE = 60.0
HOUR = 3600.0
START = 1_800_000_000.0


class Runs:
    """The runs of one command line, at minutes after START."""

    def __init__(self, folder: Path, who: str = "line 1") -> None:
        self.folder, self.who = folder, who

    def __call__(self, minute: float, *causes: Cause, well: bool = False) -> tuple[list[Telling], list[End]]:
        verdicts, ends = review(self.folder, self.who, causes, well=well, now=START + minute * MINUTE)
        return [verdict.telling for verdict in verdicts], ends


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "state")


def test_the_same_is_told_once_then_hourly_then_its_end_then_nothing(runs: Runs) -> None:
    tellings = [runs(minute, KEY_REFUSED)[0][0] for minute in range(0, 125, 5)]

    assert tellings[0] is Telling.FULL
    assert [minute for minute, one in zip(range(0, 125, 5), tellings, strict=True) if one is Telling.STILL] == [60, 120]
    assert runs(125, well=True) == ([], [End(KEY_REFUSED.about, True, 125 * MINUTE, 25)])
    assert runs(130, well=True) == ([], [])


def test_the_hourly_line_knows_for_how_long_and_how_often(runs: Runs) -> None:
    runs(0, KEY_REFUSED)
    runs(30, KEY_REFUSED)

    (verdict,), _ = review(runs.folder, runs.who, [KEY_REFUSED], well=False, now=START + 2 * HOUR)

    assert verdict == told.Verdict(Telling.STILL, 2 * HOUR, 3)


def test_two_causes_that_alternate_are_told_once_each_and_end_in_one_line(runs: Runs) -> None:
    tellings = [runs(minute, (KEY_REFUSED, DATABASE_AWAY)[minute % 2])[0] for minute in range(6)]

    assert tellings == 2 * [[Telling.FULL]] + 4 * [[Telling.NOT]]
    _, (end,) = runs(6, well=True)
    assert (end.seconds, end.runs) == (6 * MINUTE, 6)


def test_a_run_that_is_neither_ends_nothing(runs: Runs) -> None:
    runs(0, KEY_REFUSED)

    assert runs(1) == ([], [])
    assert runs(2, well=True)[1]


def test_a_warning_ends_by_itself_and_leaves_failures_alone(runs: Runs) -> None:
    assert runs(0, QUEUE_FULL, well=True) == ([Telling.FULL], [])
    assert runs(1, QUEUE_FULL, well=True) == ([Telling.NOT], [])
    assert runs(2, KEY_REFUSED) == ([Telling.FULL], [])
    _, ends = runs(3, QUEUE_FULL, well=True)
    assert [end.about for end in ends] == [KEY_REFUSED.about]
    _, ends = runs(4, well=True)
    assert ends == [End(QUEUE_FULL.about, False, 4 * MINUTE, 3)]


def test_what_is_over_with_its_run_has_no_end_to_tell_of(runs: Runs) -> None:
    runs(0, DEAD_LETTER)
    runs(0, QUEUE_FULL, well=True)

    assert runs(1, well=True) == ([], [])
    assert runs(2, DEAD_LETTER, QUEUE_FULL) == ([Telling.FULL, Telling.FULL], [])


def test_trouble_that_comes_back_is_told_again(runs: Runs) -> None:
    runs(0, KEY_REFUSED)
    runs(1, well=True)

    assert runs(2, KEY_REFUSED) == ([Telling.FULL], [])
    assert runs(3, well=True)[1] == [End(KEY_REFUSED.about, True, MINUTE, 1)]


def test_trouble_that_comes_and_goes_is_told_hourly_in_the_end(runs: Runs) -> None:
    lines = [0] * 5
    for minute in range(0, 300, 2):
        (telling,), _ = runs(minute, KEY_REFUSED)
        lines[minute // 60] += telling is not Telling.NOT
        lines[minute // 60] += len(runs(minute + 1, well=True)[1])

    assert lines == [6, 2, 2, 2, 2]
    # An hour without it makes it new.
    assert runs(365, KEY_REFUSED) == ([Telling.FULL], [])


def test_command_lines_do_not_silence_each_other(runs: Runs) -> None:
    other = Runs(runs.folder, "line 2")
    runs(0, KEY_REFUSED)

    assert other(1, KEY_REFUSED) == ([Telling.FULL], [])
    assert other(2, well=True)[1]
    assert runs(3, KEY_REFUSED) == ([Telling.NOT], [])


def test_a_clock_that_was_set_back_silences_nothing_for_long(runs: Runs) -> None:
    runs(600, KEY_REFUSED)

    assert runs(0, KEY_REFUSED) == ([Telling.STILL], [])
    assert runs(1, KEY_REFUSED) == ([Telling.NOT], [])


def test_what_is_kept_stays_small_and_private(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MAX_ENTRIES", 20)
    for number in range(30):
        runs(number, Cause(str(number), "x" * 10_000, fails=True))

    kept = runs.folder / told.FILE
    assert kept.stat().st_size < 20 * 500
    assert kept.stat().st_mode & 0o777 == 0o600
    assert runs.folder.stat().st_mode & 0o777 == 0o700
    runs(60 * 24 * 31, KEY_REFUSED)
    assert kept.read_bytes().count(b'"who"') == 1


@pytest.mark.parametrize("rest", [b"", b"\0\0\0", b"{}", b'[{"who": 1}]', b'[{"who": "line 1"'])
def test_a_garbled_file_is_begun_anew(runs: Runs, rest: bytes) -> None:
    runs.folder.mkdir()
    (runs.folder / told.FILE).write_bytes(rest)

    assert runs(0, well=True) == ([], [])
    assert runs(1, KEY_REFUSED) == ([Telling.FULL], [])
    assert runs(2, KEY_REFUSED) == ([Telling.NOT], [])


def test_many_at_once_lose_no_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "LOCK_PATIENCE_SECONDS", 30.0)
    threads = 8
    barrier = threading.Barrier(threads)

    def work(number: int) -> list[Telling]:
        barrier.wait()
        tellings = runs(number, KEY_REFUSED)[0]
        return tellings + runs(number, Cause(f"own {number}", "its own", fails=True))[0]

    with ThreadPoolExecutor(threads) as pool:
        tellings = list(pool.map(work, range(threads)))

    assert [first for first, _ in tellings].count(Telling.FULL) == 1
    assert {second for _, second in tellings} == {Telling.FULL}
    _, (end,) = runs(10, well=True)
    assert end.runs == 2 * threads


def test_a_lock_that_somebody_holds_for_ever_is_an_error_soon(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "LOCK_PATIENCE_SECONDS", 0.02)
    runs.folder.mkdir()
    with (runs.folder / told.LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError):
            runs(0, KEY_REFUSED)

    assert runs(1, KEY_REFUSED) == ([Telling.FULL], [])


def test_a_run_that_goes_well_makes_no_folder(runs: Runs) -> None:
    runs(0, well=True)

    assert not runs.folder.exists()


def test_links_in_the_folder_are_not_followed(runs: Runs, tmp_path: Path) -> None:
    runs.folder.mkdir()
    (tmp_path / "precious").write_text("precious")
    (runs.folder / f"{told.FILE}.new").symlink_to(tmp_path / "precious")

    with pytest.raises(OSError):
        runs(0, KEY_REFUSED)
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for uid, own in ((0, Path("/var/lib/assetbatch/state")), (1000, tmp_path / ".local" / "state" / "assetbatch")):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert state_folder({"XDG_STATE_HOME": str(tmp_path / "s")}) == tmp_path / "s" / "assetbatch"
        for environ in ({}, {"XDG_STATE_HOME": "relative"}):
            assert state_folder(environ) == own


def test_roots_folder_lets_the_embedded_servers_account_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    old = os.umask(0o077)
    try:
        Runs(tmp_path / "lib" / "state")(0, KEY_REFUSED)
    finally:
        os.umask(old)

    assert (tmp_path / "lib").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "lib" / "state").stat().st_mode & 0o777 == 0o700


def test_whereabouts_are_the_file_and_the_database_but_no_password(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").touch()
    url = {"DATABASE_URL": "postgresql://u:one@host/db"}
    other_files = [
        whereabouts(None, {}, tmp_path),
        whereabouts(None, {}, tmp_path / "b"),
        whereabouts(Path("my.yaml"), {}, tmp_path),
        whereabouts(None, url, tmp_path),
        whereabouts(None, {"DATABASE_URL": "postgresql://u:one@host/db2"}, tmp_path),
        whereabouts(None, {"DB_HOST": "a"}, tmp_path),
        whereabouts(None, {"DB_NAME": "a"}, tmp_path),
    ]
    assert len(set(other_files)) == len(other_files)

    assert whereabouts(None, {"ASSETBATCH_CONFIG": "my.yaml"}, tmp_path) == other_files[2]
    assert whereabouts(tmp_path / "b" / ".." / "my.yaml", {}, tmp_path) == other_files[2]
    assert whereabouts(None, {"DATABASE_URL": "postgresql://u:two@host/db"}, tmp_path) == other_files[3]
    words = [{"DATABASE_URL": f"host=a password={one} dbname=b"} for one in ("one", "two", "'t h'")]
    assert len({whereabouts(None, environ, tmp_path) for environ in words}) == 1
