"""Processes that die: run as a program of its own, because it forks, once for each death.

    python tests/crashes.py NAME COUNT FOLDER

Prints one JSON line with what happened; an assertion that fails is an exit code of 1.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from faults import (
    TERMS,
    Script,
    State,
    matches,
    patched,
    run,
    still_writes,
    which,
)

from minisplade import (
    Index,
    IndexFormatError,
    IndexLockedError,
    IndexWriteError,
    InputError,
    SparseVectors,
)

ONE = SparseVectors.from_dense(np.ones((1, TERMS), np.float32))


def child(work: Callable[[Callable[[int], None]], None]) -> tuple[int, int]:
    """Start a process that does some work; returns its id, and a pipe with what it acknowledges."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.close(reader)
            work(lambda number: os.write(writer, b"%d\n" % number))  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return process, reader


def last_acknowledged(reader: int, before: int) -> int:
    """Read a pipe to its end; returns the last number in it, or the one before."""
    with os.fdopen(reader, "rb") as pipe:
        numbers = pipe.read().split()
    return int(numbers[-1]) if numbers else before


def states_of(seed: int, count: int) -> list[State]:
    """Return the states of a script: the empty one, and one after each transaction."""
    script = Script(seed)
    states: list[State] = [{}]
    for _ in range(count):
        script.transaction()
        states.append(dict(script.state))
    return states


def follow(path: Path, script: Script, first: int, acknowledge: Callable[[int], None]) -> None:
    """Go on with a script from its transaction of a number, for ever."""
    number = 0
    index = Index.open(path)
    while True:
        steps = script.transaction()
        number += 1
        if number > first:
            run(index, steps)
            acknowledge(number)


def kill_at_random(count: int, folder: Path) -> dict[str, int]:
    """Kill a writer at random instants, and let the next one go on from what is left."""
    chance, found = random.Random(1), Counter[str]()
    seed, state, path = 0, 0, folder / "index"
    for death in range(count):
        if state == 0 or state > 60:  # scripts start anew, so that going on stays quick
            seed, state = death, 0
            shutil.rmtree(path, ignore_errors=True)
            Index.create(path)

        def work(acknowledge: Callable[[int], None], seed: int = seed, first: int = state) -> None:
            follow(path, Script(seed), first, acknowledge)

        process, reader = child(work)
        time.sleep(chance.uniform(0, 0.12))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        acknowledged = last_acknowledged(reader, state)
        states = states_of(seed, acknowledged + 1)[acknowledged:]
        place = which(path, states)
        found["kills"] += 1
        found["in flight, kept" if place else "last acknowledged"] += 1
        found["commits"] += acknowledged + place - state
        state = acknowledged + place
    return found


def exit_at_each_operation(count: int, folder: Path) -> dict[str, int]:
    """Run each script to its first, second, third ... operation, where the process ends at once.

    The process after it, which finds what is left, ends at a random operation too.
    """
    found = Counter[str]()
    path = folder / "index"
    for seed in range(count):
        chance, operation, ended = random.Random(seed), 0, False
        states = states_of(seed, 3)
        while not ended:
            shutil.rmtree(path, ignore_errors=True)

            def work(
                acknowledge: Callable[[int], None], seed: int = seed, last: int = operation
            ) -> None:
                with patched(Countdown(last)):
                    Index.create(path)
                    acknowledge(0)
                    script, index = Script(seed), Index.open(path)
                    for number in range(1, 4):
                        run(index, script.transaction())
                        acknowledge(number)

            process, reader = child(work)
            _, status = os.waitpid(process, 0)
            ended = os.waitstatus_to_exitcode(status) == 0
            acknowledged = last_acknowledged(reader, -1)
            operation += 1
            found["exits"] += not ended
            if acknowledged < 0:
                try:
                    which(path, states[:1])
                except (IndexFormatError, FileNotFoundError):
                    Index.create(path)  # what is left is in nobody's way
                acknowledged = 0
            place = acknowledged + which(path, states[acknowledged : acknowledged + 2])
            last = chance.randint(0, 12)
            process, reader = child(partial(die_while_writing, path, last))
            os.waitpid(process, 0)
            os.close(reader)
            with_new = {**states[place], "new": ("", {"year": 0}, (1,) * TERMS)}
            if which_with_new(path, states[place]) == 0:
                still_writes(path, states[place])
            else:
                assert list(Index.open(path).keys) == list(with_new)
            found["deaths of the next writer"] += 1
        found["scripts"] += 1
    return found


def die_while_writing(path: Path, last: int, _: object) -> None:
    """Add a document in a process that ends at some operation."""
    with patched(Countdown(last)):
        index = Index.open(path)
        index.add(["new"], vectors=ONE)
        index.commit()


def which_with_new(path: Path, state: State) -> int:
    """Tell whether the document of die_while_writing is there: 1, or 0 for the state alone."""
    index = Index.open(path)
    index.verify(full=True)
    return 1 if "new" in index else which(path, [state])


class Countdown:
    """Ends the process at an operation; a write is first done in half."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, name: str, arguments: tuple[object, ...]) -> None:
        if self.left == 0:
            if name == "write":
                content = arguments[1]
                assert isinstance(content, memoryview)
                os.write(arguments[0], content[: len(content) // 2])  # type: ignore[arg-type]
            os._exit(7)
        self.left -= 1


def full_disk(count: int, folder: Path) -> dict[str, int]:
    """Run a script where no file may grow past some size."""
    found = Counter[str]()
    states = states_of(3, 6)
    path = folder / "index"
    for number in range(count):
        shutil.rmtree(path, ignore_errors=True)
        Index.create(path)
        size = 200 + number * 24_000 // count

        def work(acknowledge: Callable[[int], None], size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            script, index = Script(3), Index.open(path)
            for number in range(1, 7):
                try:
                    run(index, script.transaction())
                except IndexWriteError:
                    os._exit(0)
                acknowledge(number)
            os._exit(9)  # all went well

        process, reader = child(work)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9), f"the process ended with {code}"
        found["full" if code == 0 else "large enough"] += 1
        acknowledged = last_acknowledged(reader, 0)
        assert which(path, [states[acknowledged]]) == 0
        still_writes(path, states[acknowledged])
    return found


def two_writers(count: int, folder: Path) -> dict[str, int]:
    """Let a second writer try while a first one is at work, commits, or is killed."""
    found = Counter[str]()
    path = folder / "index"
    Index.create(path)
    expected: list[str] = []
    for number in range(count):
        commits = number % 3 == 0
        go_reader, go_writer = os.pipe()

        def work(
            acknowledge: Callable[[int], None],
            name: str = f"first{number}",
            commits: bool = commits,
            go: int = go_reader,
        ) -> None:
            index = Index.open(path)
            index.add([name], vectors=ONE)
            acknowledge(1)
            os.read(go, 1)
            if commits:
                index.commit()
                return
            time.sleep(60)

        process, reader = child(work)
        assert os.read(reader, 2) == b"1\n"
        second = Index.open(path)
        try:
            second.add([f"second{number}"], vectors=ONE)
        except IndexLockedError:
            found["second writer refused"] += 1
        else:
            raise AssertionError("two writers at once")
        assert list(second.keys) == expected  # readers go on
        os.write(go_writer, b"x")
        if commits:
            expected.append(f"first{number}")
        else:
            os.kill(process, signal.SIGKILL)
            found["dead writer's lock taken over"] += 1
        os.waitpid(process, 0)
        for handle in (reader, go_reader, go_writer):
            os.close(handle)
        second.add([f"second{number}"], vectors=ONE)
        second.commit()
        expected.append(f"second{number}")
        assert list(Index.open(path).keys) == expected
        Index.open(path).verify(full=True)
        if len(expected) > 40:
            second.delete(expected)
            second.commit()
            expected = []
    found["rounds"] = count
    return found


def damaged_files(step: int, folder: Path) -> dict[str, int]:
    """Cut, lengthen, empty, swap, delete and mix up files; a bad map would kill this process."""
    found = Counter[str]()
    path, older = folder / "index", folder / "older"
    Index.create(path)
    script, index = Script(4), Index.open(path)
    for number in range(3):
        run(index, script.transaction())
        if number == 0:
            first = dict(script.state)
            shutil.copytree(path, older)
    index.add(["last"], vectors=ONE)
    index.commit(merge=False)
    state = {**script.state, "last": ("", {}, (1,) * TERMS)}
    names = sorted(name for name in os.listdir(path) if not name.startswith("lock"))
    assert {name.partition(".")[2] for name in names} == {"", "deleted", "documents", "postings"}

    def damage(name: str, kind: str, content: bytes | None) -> None:
        whole = (path / name).read_bytes()
        if content is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(content)
        found[kind] += 1
        must_be_found_out(path, state, found)
        (path / name).write_bytes(whole)

    for name in names:
        whole = (path / name).read_bytes()
        for size in range(0, len(whole), step):
            damage(name, "cut", whole[:size])
        for size in range(1, 4 * step + 1, step):
            damage(name, "lengthened", whole + bytes(size))
            damage(name, "lengthened", whole + whole[:size])
        damage(name, "deleted", None)
        damage(name, "zeros", bytes(len(whole)))
        for other in names:
            content = (path / other).read_bytes()
            if content != whole:
                damage(name, "swapped", content)
        for other in os.listdir(older):
            content = (older / other).read_bytes()
            if content != whole and not (other == "manifest" and name == "manifest"):
                damage(name, "of another generation", content)
    # An old manifest whose files are gone must be found out; with its files, it is an old index.
    (path / "manifest").write_bytes((older / "manifest").read_bytes())
    (path / Index.open(older).snapshot.manifest.files[0].name).unlink()  # type: ignore[union-attr]
    must_be_found_out(path, state, found)
    for other in os.listdir(older):
        shutil.copy(older / other, path / other)
    assert which(path, [first]) == 0
    return found


def must_be_found_out(path: Path, state: State, found: Counter[str]) -> None:
    """Assert that a full check tells, and that using the index tells or is right all the same."""
    try:
        Index.open(path).verify(full=True)
    except IndexFormatError:
        found["found by verify"] += 1
    else:
        raise AssertionError("damage was not found out")
    try:
        index = Index.open(path)
        assert list(index.keys) == list(state)
        # The weights of a damaged file are never used, so hits are those of the whole one.
        index.search(ONE[0], k=50)
        found["used all the same"] += 1
    except (IndexFormatError, InputError):
        found["refused"] += 1


def readers(seconds: int, folder: Path) -> dict[str, int]:
    """Read in three processes while a fourth one writes; every result is a committed snapshot's."""
    path, seed = folder / "index", 6
    Index.create(path)
    end = time.monotonic() + seconds

    def write(acknowledge: Callable[[int], None]) -> None:
        script, index = Script(seed), Index.open(path)
        while time.monotonic() < end:
            run(index, script.transaction())
        acknowledge(script.transactions)

    def read(acknowledge: Callable[[int], None]) -> None:
        script, index, compared = Script(seed), Index.open(path), 0
        held, held_state = None, dict(script.state)
        while time.monotonic() < end:
            index.refresh()
            mark = index.get("mark")
            now = int(mark.text or "") if mark else 0
            assert now >= script.transactions, "an older snapshot than before"
            while script.transactions < now:
                script.transaction()
            assert matches(index, script.state), f"not what commit {now} left"
            compared += 1
            if compared % 50 == 0:
                index.verify(full=True)
                # By now, commits and merges have removed the files of this one.
                assert held is None or matches(held, held_state)
                held, held_state = Index(index.snapshot), dict(script.state)
        acknowledge(compared)

    processes = [child(write), *(child(read) for _ in range(3))]
    counts = []
    for process, reader in processes:
        _, status = os.waitpid(process, 0)
        counts.append(last_acknowledged(reader, 0))
        assert os.waitstatus_to_exitcode(status) == 0
    return {"commits": counts[0], "snapshots compared": sum(counts[1:])}


TESTS = {
    test.__name__: test
    for test in (
        kill_at_random,
        exit_at_each_operation,
        full_disk,
        two_writers,
        damaged_files,
        readers,
    )
}

if __name__ == "__main__":
    name, count, where = sys.argv[1:]
    warm = Path(where) / "warm"  # kernels are compiled or loaded before the first fork
    run(Index.create(warm), Script(0).transaction())
    which(warm, states_of(0, 1)[1:])
    print(json.dumps(TESTS[name](int(count), Path(where))))
