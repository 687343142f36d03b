"""Running test files once more in a process of another kind."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

INNER = "MINISPLADE_INNER_TESTS"


def assert_passes_uncompiled(path: str, chosen: str = "") -> None:
    """Run the tests of a file, or those chosen by name, where kernels are plain Python."""
    assert_passes_elsewhere([Path(path)], {"NUMBA_DISABLE_JIT": "1"}, chosen)


def assert_passes_elsewhere(
    paths: Sequence[Path], environment: Mapping[str, str], chosen: str = ""
) -> None:
    """Run the tests of some files, or those chosen by name, with environment variables set."""
    if INNER in os.environ:
        return
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, paths), "-k", chosen],
        env={**os.environ, **environment, INNER: "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
