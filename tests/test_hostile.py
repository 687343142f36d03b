"""Damaged and malicious files end in a clear error, soon and in little memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAX_SECONDS = 1.0
MAX_BYTES = 64 << 20


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of every case, all tried in one process of their own."""
    program = Path(__file__).with_name("hostile_files.py")
    command = [sys.executable, str(program), str(tmp_path_factory.mktemp("hostile"))]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_hand_made_files_are_refused(rows: list[dict[str, Any]]) -> None:
    made = [row for row in rows if not row["case"].startswith("mutation")]
    assert len(made) >= 60
    wrong = [row for row in made if row["outcome"] != "CheckpointError"]
    assert wrong == []


def test_mutations_load_or_are_refused(rows: list[dict[str, Any]]) -> None:
    mutated = [row for row in rows if row["case"].startswith("mutation")]
    assert len(mutated) == 2000
    wrong = [row for row in mutated if row["outcome"] not in ("loaded", "CheckpointError")]
    assert wrong == []
    refused = sum(row["outcome"] == "CheckpointError" for row in mutated)
    assert 500 < refused < 1900  # they do damage, and not always


def test_time_and_memory(rows: list[dict[str, Any]]) -> None:
    slow = [row for row in rows if row["seconds"] > MAX_SECONDS]
    assert slow == []
    large = [row for row in rows if row["grown_bytes"] > MAX_BYTES]
    assert large == []
