"""What this machine offers: the fastest kernels for its CPU, threads, and a place for caches."""

import os
import platform
import stat
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from minisplade.errors import InputError

KernelPath = Literal["reference", "tiles", "screened"]

KERNEL_PATHS: dict[KernelPath, str] = {
    "reference": "plain NumPy, without Numba",
    "tiles": "compiled, for every CPU; computes every logit",
    "screened": "compiled, needs AVX2; computes the few logits that an int8 bound leaves",
}
"""From slow to fast; each gives the same vectors within float32's rounding."""


def cache_dir() -> Path:
    """Return the folder for what is fetched or made once: $MINISPLADE_CACHE or the user's cache."""
    chosen = os.environ.get("MINISPLADE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "minisplade"


def compiled_code_dirs() -> list[Path]:
    """Return where compiled kernels are looked for, and the first writable one of which keeps them.

    Beside the source, where an image or a layer can bring them along; in cache_dir, for an
    installation that cannot be written; and failing that in a folder for temporary files, which
    lasts as long as the container. $MINISPLADE_CACHE, if set, takes the place of the first two.
    """
    places = [cache_dir() / "kernels"]
    if not os.environ.get("MINISPLADE_CACHE"):
        places.insert(0, Path(__file__).parent / "kernels" / "__pycache__")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    temporary = Path(tempfile.gettempdir()) / f"minisplade-kernels-{user}"
    return [*places, temporary] if _is_private(temporary) else places


def _is_private(folder: Path) -> bool:
    """Tell whether nobody else can have put machine code into a folder; make it if need be."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    owner = os.getuid() if hasattr(os, "getuid") else status.st_uid
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not status.st_mode & 0o022


@cache
def cpu_features() -> frozenset[str]:
    """Return the instruction sets to compile for, such as "avx2"; none without llvmlite.

    They are those that LLVM finds on this CPU, or those of $NUMBA_CPU_FEATURES, Numba's own switch.
    """
    if not find_spec("llvmlite"):
        return frozenset()
    wanted = os.environ.get("NUMBA_CPU_FEATURES")
    if wanted is not None:
        return frozenset(name[1:] for name in wanted.split(",") if name.startswith("+"))
    from llvmlite.binding import get_host_cpu_features

    return frozenset(name for name, present in get_host_cpu_features().items() if present)


def choose_kernel_path(wanted: str | None = None) -> KernelPath:
    """Return the kernel path to use: the one asked for, or the fastest that runs here.

    wanted: a key of KERNEL_PATHS; None asks $MINISPLADE_PATH, and without it takes the fastest.
    Raises InputError for an unknown path, or one that cannot run here.
    """
    possible: list[KernelPath] = ["reference"]
    if find_spec("numba"):
        possible.append("tiles")
        if "avx2" in cpu_features():
            possible.append("screened")
    wanted = wanted or os.environ.get("MINISPLADE_PATH") or possible[-1]
    for path in possible:
        if path == wanted:
            return path
    if wanted in KERNEL_PATHS:
        lacks = "Numba is not installed" if len(possible) == 1 else f"{cpu_name()} has no AVX2"
        raise InputError(f"kernel path {wanted!r} cannot run here: {lacks}")
    raise InputError(f"kernel path {wanted!r} is unknown; expected one of {list(KERNEL_PATHS)}")


def choose_num_threads(wanted: int | None = None) -> int:
    """Return the number of threads to use: wanted, $MINISPLADE_NUM_THREADS, or one per CPU.

    Counts the CPUs that this process may run on. Raises InputError.
    """
    source = "num_threads"
    number: object = wanted
    if wanted is None:
        text = os.environ.get("MINISPLADE_NUM_THREADS")
        if not text:
            return available_cpus()
        source, number = "MINISPLADE_NUM_THREADS", int(text) if text.isdecimal() else text
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"{source} is {number!r}; expected a whole number, 1 or more")
    return number


def available_cpus() -> int:
    """Count the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, str | int]:
    """Return what `minisplade info` shows: versions, CPU, kernel path, threads and folders."""
    from importlib.metadata import (
        PackageNotFoundError,
        version,
    )  # takes 15 ms, and is seldom needed

    path = choose_kernel_path()
    versions = []
    for package in ("minisplade", "numpy", "numba", "llvmlite", "safetensors", "tokenizers"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    known = ("avx2", "fma", "avx512f", "avx512vnni", "avxvnni", "neon", "sve")
    return {
        "versions": ", ".join(versions),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu features": " ".join(name for name in known if name in cpu_features()) or "none known",
        "kernel path": path,
        "  which is": KERNEL_PATHS[path],
        "threads": choose_num_threads(),
        "cache": str(cache_dir()),
        "kernel cache": ", ".join(map(str, compiled_code_dirs())),
    }


def cpu_name() -> str:
    """Return what the CPU calls itself, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
