"""What the fault tests share: random scripts, a model of what they leave, and a disk that fails."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import naive
import numpy as np

from minisplade import Index, SparseVectors, disk

TERMS = 9
QUERIES = np.array([[1, 0, 2, 0, 0, 3, 0, 1, 0], [0, 2, 0, 1, 1, 0, 0, 0, 0]], np.float32)
OPERATIONS = ("create", "write", "sync", "close", "rename", "sync_folder", "remove")

Row = tuple[str, dict[str, Any], tuple[int, ...]]
"""Text, metadata and whole-number weights of a document; sums of them are exact."""

State = dict[str, Row]
"""What an index should hold, in order."""

Step = tuple[str, Any]


@dataclass
class Script:
    """Random changes to an index, the same for each seed, and the state after each commit."""

    seed: int
    random: random.Random = field(init=False)
    state: State = field(default_factory=dict)
    count: int = 0
    transactions: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def row(self) -> Row:
        """Make up a document."""
        self.count += 1
        weights = tuple(self.random.choice((0, 0, 1, 2, 3)) for _ in range(TERMS))
        metadata = {"year": self.random.randint(1990, 1999), "tags": ["a", f"t{self.count % 3}"]}
        return f"text {self.seed}.{self.count} ünïcode", metadata, weights

    def transaction(self) -> list[Step]:
        """Return the steps of the next transaction, and take its changes over into the state."""
        steps: list[Step] = []
        for _ in range(self.random.randint(1, 3)):
            kind = self.random.choice(("add", "add", "add", "delete", "where", "update"))
            if kind == "add":
                keys = [f"k{self.random.randint(0, 30)}" for _ in range(self.random.randint(1, 6))]
                rows = [self.row() for _ in keys]
                for key, row in zip(keys, rows):
                    self.state.pop(key, None)
                    self.state[key] = row
                steps.append(("add", (keys, rows)))
            elif kind == "delete":
                gone = [f"k{self.random.randint(0, 30)}" for _ in range(3)]
                for key in gone:
                    self.state.pop(key, None)
                steps.append(("delete", gone))
            elif kind == "where":
                year = self.random.randint(1990, 1999)
                for key in [key for key, row in self.state.items() if row[1]["year"] == year]:
                    del self.state[key]
                steps.append(("delete", {"year": year}))
            elif self.state:
                key = self.random.choice(list(self.state))
                text, _, weights = self.state.pop(key)
                self.state[key] = (text, {"year": 2000}, weights)
                steps.append(("update", key))
        # The last document tells how many transactions there were, and none is without effect.
        self.transactions += 1
        mark = (str(self.transactions), {"year": 0}, (1,) * TERMS)
        self.state.pop("mark", None)
        self.state["mark"] = mark
        steps.append(("add", (["mark"], [mark])))
        steps.append(("commit", self.random.random() < 0.5))
        if self.random.random() < 0.2:
            steps.append(("compact", None))
        return steps


def run(index: Index, steps: list[Step]) -> None:
    """Do the steps of a transaction."""
    for kind, what in steps:
        if kind == "add":
            keys, rows = what
            vectors = SparseVectors.from_dense(np.array([row[2] for row in rows], np.float32))
            index.add(keys, [r[0] for r in rows], [r[1] for r in rows], vectors=vectors)
        elif kind == "update":
            index.update([what], metadata=[{"year": 2000}])
        elif kind == "delete":
            index.delete(what)
        elif kind == "commit":
            index.commit(merge=what)
        else:
            index.compact()


def contents(index: Index) -> State:
    """Read everything that a script stores but the vectors, which searches show."""
    return {
        key: (text or "", json.loads(metadata or "{}"), ())
        for key, text, metadata in index.snapshot.live_rows()
    }


def matches(index: Index, state: State) -> bool:
    """Tell whether an index holds exactly a state: documents, order, filters and hits."""
    if contents(index) != {key: (row[0], row[1], ()) for key, row in state.items()}:
        return False
    if list(contents(index)) != list(state) or len(index) != len(state):
        return False
    return hits_match(index, state)


def hits_match(index: Index, state: State) -> bool:
    """Tell whether searches find what brute force finds in a state, ties in order."""
    keys = list(state)
    dense = np.array([row[2] for row in state.values()], np.float64).reshape(-1, TERMS)
    after = np.array([row[1]["year"] > 1994 for row in state.values()], bool)
    for query in QUERIES:
        vector = SparseVectors.from_dense(query[None])[0]
        for condition, shown in ((None, dense), ({"year": {">": 1994}}, dense * after[:, None])):
            best, scores = naive.search(shown, query.astype(np.float64), 7)
            hits = index.search(vector, k=7, filter=condition)
            if hits.keys != tuple(keys[i] for i in best) or hits.scores.tolist() != scores:
                return False
    return True


def which(path: str | Path, states: list[State]) -> int:
    """Return which of some states an index that is whole holds, the later of equal ones."""
    index = Index.open(path)
    index.verify(full=True)
    found = [place for place, state in enumerate(states) if matches(index, state)]
    assert found, f"{path} holds none of {len(states)} states, but {contents(index)}"
    return found[-1]


def still_writes(path: str | Path, state: State) -> None:
    """Assert that the next transaction works and leaves no file that nothing needs."""
    index = Index.open(path)
    index.add(["new"], vectors=SparseVectors.from_dense(np.ones((1, TERMS), np.float32)))
    index.commit(merge=False)
    assert index.snapshot.manifest is not None
    needed = {file.name for file in index.snapshot.manifest.files}
    assert set(os.listdir(path)) - {"manifest", "lock", "lock.merge"} == needed
    assert tuple(index.keys) == (*(key for key in state if key != "new"), "new")
    index.delete(["new"])
    index.commit(merge=False)
    assert which(path, [state]) == 0


@contextmanager
def patched(before: Callable[[str, tuple[Any, ...]], Any]) -> Iterator[None]:
    """Call a function before each operation on the disk; what it returns, if anything, replaces it.

    before: takes the name of the operation and its arguments.
    """
    originals = {name: getattr(disk, name) for name in OPERATIONS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = before(name, arguments)
            return originals[name](*arguments) if result is None else result

        return call

    for name in OPERATIONS:
        setattr(disk, name, wrapped(name))
    try:
        yield
    finally:
        for name in OPERATIONS:
            setattr(disk, name, originals[name])


# Power loss: operations are recorded, and folders are made of what could be left of them.


@dataclass
class Recording:
    """Every operation of a run in order, and what had been acknowledged before each."""

    operations: list[tuple[str, Any, Any]] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)  # as many as operations
    acks: int = -1  # the last state whose commit has returned; -1 before there is an index
    _names: dict[int, int] = field(default_factory=dict)  # file of each open handle
    _files: int = 0

    def note(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Take down an operation; creates it itself, to learn the handle."""
        result: Any = None
        if name == "create":
            self._files += 1
            result = ORIGINAL_CREATE(arguments[0])
            self._names[result] = self._files
            self._take("create", os.path.basename(arguments[0]), self._files)
        elif name == "write":
            self._take("write", self._names[arguments[0]], bytes(arguments[1]))
        elif name == "sync":
            self._take("sync", self._names[arguments[0]], None)
        elif name == "rename":
            self._take("rename", *map(os.path.basename, arguments))
        elif name == "remove":
            self._take("remove", os.path.basename(arguments[0]), None)
        elif name == "sync_folder":
            self._take("sync_folder", None, None)
        return result

    def _take(self, name: str, first: Any, second: Any) -> None:
        self.operations.append((name, first, second))
        self.acknowledged.append(self.acks)

    def after_power_loss(self, count: int, folder: Path, chance: random.Random) -> None:
        """Make a folder of what could be left if the power fails after some operations.

        What was not synced is there or not: each name, each write, or the beginning of a write.
        """
        keep = chance.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        names: dict[str, int] = {}  # in the folder as the running system sees it
        durable: list[tuple[str, Any, Any]] = []
        waiting: list[tuple[str, Any, Any]] = []
        written: dict[int, list[tuple[int, bytes, bool]]] = {}  # place, content, synced
        for name, first, second in self.operations[:count]:
            if name == "create":
                names[first] = second
                waiting.append(("link", first, second))
            elif name == "write":
                own = written.setdefault(first, [])
                own.append((sum(len(part) for _, part, _ in own), second, False))
            elif name == "sync":
                own = written.setdefault(first, [])
                own[:] = [(place, content, True) for place, content, _ in own]
            elif name == "rename":
                names[second] = names.pop(first)
                waiting += [("move", (first, second), names[second])]
            elif name == "remove":
                names.pop(first)
                waiting.append(("unlink", first, None))
            else:
                durable += waiting
                waiting = []
        left: dict[str, int] = {}
        for kind, name, number in durable + [one for one in waiting if chance.random() < keep]:
            if kind == "link":
                left[name] = number
            elif kind == "move":
                left.pop(name[0], None)
                left[name[1]] = number
            else:
                left.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, number in left.items():
            content = bytearray()
            for place, part, synced in written.get(number, []):
                if not synced and chance.random() >= keep:
                    continue
                if not synced and chance.random() < 0.5:
                    part = part[: chance.randint(0, len(part))]
                content.extend(bytes(max(0, place - len(content))))  # holes read as zeros
                content[place : place + len(part)] = part
            (folder / name).write_bytes(content)


ORIGINAL_CREATE = disk.create


def record(path: Path, seed: int, transactions: int) -> tuple[Recording, list[State]]:
    """Run a script while its operations are recorded; returns them and all committed states."""
    recording, script = Recording(), Script(seed)
    states: list[State] = [{}]
    with patched(recording.note):
        index = Index.create(path)
        recording.acks = 0
        for number in range(transactions):
            run(index, script.transaction())
            states.append(dict(script.state))
            recording.acks = number + 1
    return recording, states
