"""Choosing kernels, threads and the place of compiled code; and that warming up leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN

from minisplade import InputError, SparseEncoder, runtime
from minisplade.cli import main

COUNT_COMPILATIONS = """
import gc, json, sys
from numba.core.dispatcher import Dispatcher
from minisplade import Index, SparseEncoder
for path in ("tiles", "screened"):
    for name in ("bert", "bert-float16", "distilbert"):
        encoder = SparseEncoder(sys.argv[1] + "/" + name, kernel_path=path)
        index = Index.from_texts(["a cat", "the mat"], encoder)
        for k in (1, 10, 1000):
            index.search("the cat", k=k)
used = [d for d in gc.get_objects() if isinstance(d, Dispatcher) and d.signatures]
print(json.dumps(sorted(d.py_func.__name__ for d in used if sum(d.stats.cache_misses.values()))))
"""


def test_the_fastest_path_is_chosen_and_others_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINISPLADE_PATH", raising=False)
    fastest = "screened" if "avx2" in runtime.cpu_features() else "tiles"
    assert runtime.choose_kernel_path() == fastest
    assert SparseEncoder(GOLDEN / "bert").kernel_path == fastest
    assert runtime.choose_kernel_path("reference") == "reference"
    monkeypatch.setenv("MINISPLADE_PATH", "tiles")
    assert SparseEncoder(GOLDEN / "bert").kernel_path == "tiles"
    assert runtime.choose_kernel_path("reference") == "reference"


def test_paths_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'vnmi' is unknown; expected one of .*'screened'"):
        runtime.choose_kernel_path("vnmi")
    monkeypatch.setattr(runtime, "cpu_features", lambda: frozenset({"neon"}))
    assert runtime.choose_kernel_path() == "tiles"
    with pytest.raises(InputError, match="'screened' cannot run here: .* has no AVX2"):
        runtime.choose_kernel_path("screened")
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert runtime.choose_kernel_path() == "reference"
    with pytest.raises(InputError, match="'tiles' cannot run here: Numba is not installed"):
        runtime.choose_kernel_path("tiles")


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINISPLADE_NUM_THREADS", raising=False)
    assert runtime.choose_num_threads() == runtime.available_cpus() >= 1
    assert runtime.choose_num_threads(3) == 3
    monkeypatch.setenv("MINISPLADE_NUM_THREADS", "2")
    assert runtime.choose_num_threads() == SparseEncoder(GOLDEN / "bert").num_threads == 2
    assert runtime.choose_num_threads(1) == 1
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("MINISPLADE_NUM_THREADS", wrong)
        with pytest.raises(InputError, match="MINISPLADE_NUM_THREADS is .* expected a whole"):
            runtime.choose_num_threads()
    for number in (0, -2, True, 2.0):
        with pytest.raises(InputError, match="num_threads is"):
            SparseEncoder(GOLDEN / "bert", num_threads=number)  # type: ignore[arg-type]


def test_compiled_code_finds_a_place_where_the_installation_is_read_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert runtime.compiled_code_dir() is None
    monkeypatch.setattr(runtime, "__file__", "/proc/minisplade/runtime.py")
    monkeypatch.setenv("MINISPLADE_CACHE", str(tmp_path))
    assert runtime.compiled_code_dir() == tmp_path / "kernels"
    monkeypatch.setenv("MINISPLADE_CACHE", "/proc/nowhere")
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    assert runtime.compiled_code_dir() == tmp_path / "minisplade-kernels"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert runtime.compiled_code_dir() is None


def test_after_warming_up_nothing_is_compiled(tmp_path: Path) -> None:
    if runtime.choose_kernel_path() != "screened":
        pytest.skip("this CPU has no AVX2")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    warm = [sys.executable, "-m", "minisplade", "warmup"]
    run = subprocess.run(warm, env=environment, capture_output=True, text=True, check=True)
    assert str(tmp_path) in run.stderr
    counting = [sys.executable, "-c", COUNT_COMPILATIONS, str(GOLDEN)]
    run = subprocess.run(counting, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


def test_info_says_what_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINISPLADE_PATH", "reference")
    assert main(["info", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["kernel path"] == "reference" and row["threads"] >= 1
    assert "numba" in row["versions"]
    monkeypatch.setenv("MINISPLADE_PATH", "fast")
    assert main(["info"]) == 1
    assert "'fast' is unknown" in capsys.readouterr().err
    monkeypatch.setenv("MINISPLADE_PATH", "reference")
    assert main(["warmup"]) == 1
    assert "nothing to compile" in capsys.readouterr().err
