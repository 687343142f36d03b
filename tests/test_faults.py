"""What a durable index survives: crashes, power cuts, failing and full disks, damage, rivals.

Each test has two sizes, of which `make torture` runs the second. The rule is always the same: a
typed error or the right result, no acknowledged commit lost, never a mixture of two.
"""

import errno
import gc
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from crashes import states_of
from faults import (
    Recording,
    Script,
    State,
    matches,
    patched,
    record,
    run,
    still_writes,
    which,
)

from minisplade import Index, IndexFormatError, IndexWriteError
from minisplade.index.snapshot import verify

HERE = Path(__file__).parent


def sizes(test: int, torture: int) -> pytest.MarkDecorator:
    """Give a test its count in `make test` and in `make torture`."""
    second = pytest.param(torture, marks=pytest.mark.torture)
    return pytest.mark.parametrize("count", [test, second])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is one: waiting for a disk shows nothing here."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def process(name: str, count: int, folder: Path, seconds: int = 3600) -> dict[str, int]:
    """Run one of the tests of crashes.py; returns what it counted."""
    done = subprocess.run(
        [sys.executable, str(HERE / "crashes.py"), name, str(count), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"},
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counted: dict[str, int] = json.loads(done.stdout)
    print(name, counted)
    return counted


@sizes(50, 2000)
def test_writers_that_are_killed(count: int, folder: Path) -> None:
    counted = process("kill_at_random", count, folder)
    assert counted["kills"] == count and counted["commits"] > count // 2


@sizes(3, 20)
def test_processes_that_end_at_any_operation(count: int, folder: Path) -> None:
    counted = process("exit_at_each_operation", count, folder)
    assert counted["exits"] > 50 * count


@sizes(20, 100)
def test_a_full_disk(count: int, folder: Path) -> None:
    counted = process("full_disk", count, folder)
    assert counted["full"] >= count // 2 and counted["large enough"] >= 1


@sizes(20, 200)
def test_two_writers(count: int, folder: Path) -> None:
    counted = process("two_writers", count, folder)
    assert counted["second writer refused"] == count
    assert counted["dead writer's lock taken over"] >= count // 2


@sizes(64, 1)
def test_files_of_other_lengths_and_places(count: int, folder: Path) -> None:
    counted = process("damaged_files", count, folder)
    assert counted["found by verify"] > 50_000 // count


@sizes(500, 20_000)
def test_power_loss(count: int, folder: Path) -> None:
    chance, found = random.Random(0), {"old": 0, "new": 0, "no index yet": 0}
    scripts = 2 if count <= 500 else 20
    for seed in range(scripts):
        recording, states = record(folder / "index", seed, 5)
        shutil.rmtree(folder / "index")
        length = len(recording.operations)
        for number in range(count // scripts):
            prefix = number % (length + 1)
            recording.after_power_loss(prefix, folder / "left", chance)
            acks = [*recording.acknowledged, recording.acks][prefix]
            if acks < 0:
                try:
                    which(folder / "left", states[:1])
                except IndexFormatError:
                    found["no index yet"] += 1
                continue
            place = which(folder / "left", states[acks : acks + 2])
            if place:  # what was not acknowledged may be there only once it was published
                published = [name for name, _, _ in recording.operations[:prefix]].count("rename")
                assert published > acks
            found["new" if place else "old"] += 1
            if number % 10 == 0:
                still_writes(folder / "left", states[acks + place])
    print(found)
    assert found["old"] > count // 2 and found["new"] > 0


def test_the_simulated_power_loss_finds_a_missing_sync(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave out one kind of waiting for the disk, and the test above must fail."""
    for name in ("sync", "sync_folder"):
        monkeypatch.setattr("minisplade.disk.write_file", _write_file(synced=name != "sync"))
        recording, states = record(folder / name, 0, 5)
        if name == "sync_folder":
            recording = _without(recording, "sync_folder")
        chance, wrong = random.Random(0), 0
        for prefix in range(len(recording.operations) + 1):
            recording.after_power_loss(prefix, folder / "left", chance)
            acks = [*recording.acknowledged, recording.acks][prefix]
            try:
                which(folder / "left", states[max(acks, 0) : acks + 2])
            except (AssertionError, IndexFormatError):
                wrong += acks >= 0
        assert wrong > 10, name


def _write_file(synced: bool) -> Any:
    from minisplade import disk

    def write_file(path: str, parts: list[bytes]) -> None:
        handle = disk.create(path)
        for part in parts:
            disk.write(handle, memoryview(part))
        if synced:
            disk.sync(handle)
        disk.close(handle)

    return write_file


def _without(recording: Recording, name: str) -> Recording:
    kept = [i for i, operation in enumerate(recording.operations) if operation[0] != name]
    return Recording(
        [recording.operations[i] for i in kept],
        [recording.acknowledged[i] for i in kept],
        recording.acks,
    )


class Failing:
    """Makes an operation fail, once or from then on."""

    def __init__(self, first: int, error: int | None, for_ever: bool) -> None:
        self.first, self.error, self.for_ever = first, error, for_ever
        self.count, self.hits = 0, 0

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "close":  # a handle stays open in no case
            return None
        self.count += 1
        if self.count == self.first or (self.for_ever and self.count > self.first):
            self.hits += 1
            if self.error is None and name == "write":
                return os.write(arguments[0], arguments[1][: len(arguments[1]) // 3 + 1])
            raise OSError(self.error or errno.EIO, os.strerror(self.error or errno.EIO))
        return None


@sizes(1, 5)
def test_a_disk_that_fails(count: int, folder: Path) -> None:
    failures = 0
    for seed in range(count):
        states = states_of(seed, 2)
        for error in (errno.EIO, errno.ENOSPC, None):  # None: a write of fewer bytes than asked
            for for_ever in (False, True):
                operation, failing = 0, None
                while failing is None or failing.hits:
                    operation += 1
                    failing = Failing(operation, error, for_ever)
                    _run_with(failing, folder / "index", seed, states)
                    failures += failing.hits > 0
    print(failures, "failures")
    assert failures > 100 * count


def _run_with(failing: Failing, path: Path, seed: int, states: list[State]) -> None:
    """Run a script on a disk that fails; after an error, the rest must work again."""
    shutil.rmtree(path, ignore_errors=True)
    Index.create(path)
    handles = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    index, script, done = Index.open(path), Script(seed), 0
    try:
        with patched(failing):
            for number in range(1, len(states)):
                run(index, script.transaction())
                done = number
    except IndexWriteError:
        pass
    # An error while segments were made one, after the commit, is no error of the commit.
    place = which(path, states[done : done + 2])
    assert matches(Index.open(path), states[done + place])
    index.refresh()
    script = Script(seed)
    for number in range(1, len(states)):
        steps = script.transaction()
        if number > done + place:
            run(index, steps)
    assert which(path, states[-1:]) == 0
    still_writes(path, states[-1])
    del index
    gc.collect()
    if handles:
        assert len(os.listdir("/proc/self/fd")) <= handles


@sizes(1, 8)
def test_every_byte_counts(count: int, folder: Path) -> None:
    path, script = folder / "index", Script(5)
    index = Index.create(path)
    for _ in range(2):
        run(index, script.transaction())
    index.delete([next(iter(script.state))])
    index.commit(merge=False)
    state = dict(list(script.state.items())[1:])
    assert which(path, [state]) == 0
    flips = 0
    for name in sorted(os.listdir(path)):
        whole = (path / name).read_bytes()
        with open(path / name, "r+b", buffering=0) as file:
            for place in range(len(whole)):
                for pattern in range(count):
                    flipped = whole[place] ^ (0xFF if pattern == 7 else 1 << (place + pattern) % 8)
                    os.pwrite(file.fileno(), bytes([flipped]), place)
                    with pytest.raises(IndexFormatError):
                        verify(str(path), full=True)
                    if (place * count + pattern) % 40 == 0:
                        _use_damaged(path, state)
                    flips += 1
                os.pwrite(file.fileno(), whole[place : place + 1], place)
    print(flips, "flips")
    assert flips > 20_000 * count
    assert which(path, [state]) == 0


def _use_damaged(path: Path, state: State) -> None:
    """Use an index without a full check first: an error, or what is right."""
    try:
        index = Index.open(path)
        right = matches(index, state)
    except IndexFormatError:
        return
    assert right


@sizes(20, 600)
def test_readers_during_writes(count: int, folder: Path) -> None:
    counted = process("readers", count, folder)
    assert counted["snapshots compared"] > 30 * count
    assert counted["commits"] > 10 * count
