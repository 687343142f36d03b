"""Running test files once more in a process where kernels are plain Python."""

import os
import subprocess
import sys


def assert_passes_uncompiled(path: str, chosen: str = "") -> None:
    """Run the tests of a file, or those chosen by name, with the compiler switched off."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return  # this is the inner run
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", path, "-k", chosen],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
