"""Choosing kernels, threads and the place of compiled code; and that warming up leaves nothing."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import InputError, SparseEncoder, runtime
from minisplade.cli import main
from minisplade.kernels import compiler
from minisplade.kernels.compiler import Kernel, compile_object, kernel

ENCODE = """
import sys
from minisplade import SparseEncoder
for path in ("tiles", "screened"):
    for name in ("bert", "bert-float16", "distilbert", "bert-untied"):
        encoder = SparseEncoder(sys.argv[1] + "/" + name, kernel_path=path)
        encoder.encode(["a cat", "the mat"])
        encoder.explain("a cat")
print("numba" in sys.modules)
"""


SEARCH = """
import sys
import numpy as np
from minisplade import Index, SparseVectors
dense = np.random.default_rng(0).random((300, 40), np.float32)
vectors = SparseVectors.from_dense(dense * (dense < 0.3))
many = vectors[np.arange(8 * 32768) % 300]  # so many that two threads share one query
for compact, own in ((False, vectors), (True, vectors), (False, many)):
    index = Index.from_vectors(own, compact=compact)
    for k in (1, 10, 1000):
        index.search(vectors[:40], k=k, num_threads=2)
        index.search(vectors[0], k=k, num_threads=2)
        index.search(vectors[0], filter=index.make_filter(np.arange(len(own)) % 2 == 0), alpha=0.9)
with Index.create(sys.argv[1]) as index:
    index.add([str(i) for i in range(300)], vectors=vectors)
    index.commit()
    index.delete(["7"])
    index.search(vectors[:2])
print("numba" in sys.modules)
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


def test_compiled_code_is_kept_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    beside = Path(runtime.__file__).parent / "kernels" / "__pycache__"
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("MINISPLADE_CACHE", raising=False)
    assert runtime.compiled_code_dirs()[0] == beside
    monkeypatch.setenv("MINISPLADE_CACHE", str(tmp_path / "cache"))
    chosen, temporary = runtime.compiled_code_dirs()
    assert chosen == tmp_path / "cache" / "kernels"
    assert temporary.is_dir() and temporary.parent == tmp_path


def test_machine_code_from_others_is_never_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    folder = runtime.compiled_code_dirs()[-1]
    folder.chmod(0o777)
    assert folder not in runtime.compiled_code_dirs()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert folder not in runtime.compiled_code_dirs()


@kernel
def twice(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return x * 2


@kernel
def add_to(x, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    total[0] += x[0]
    return total[0]


def test_a_bound_call_keeps_its_arguments_and_sees_them_change() -> None:
    total = np.zeros(1)
    calls = [add_to.bound(np.full(1, i), total) for i in range(100)]
    assert [call() for call in calls] == np.cumsum(range(100)).tolist()
    assert calls[99]() == total[0] == sum(range(100)) + 99


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "nonsense"])
def test_damaged_machine_code_is_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    monkeypatch.setenv("MINISPLADE_CACHE", str(tmp_path))
    assert Kernel(twice.function)(21) == 42
    (path,) = (tmp_path / "kernels").glob("twice-*.o")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    wrong = {"cut": content[:-9], "flipped": content, "emptied": b"", "nonsense": b"[1]\n[2]"}
    path.write_bytes(wrong[damage])
    assert Kernel(twice.function)(21) == 42
    assert path.read_bytes() != wrong[damage]
    path.chmod(0o400)
    assert Kernel(twice.function)(21) == 42


def test_threads_wait_for_a_kernel_that_one_of_them_compiles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINISPLADE_CACHE", str(tmp_path))
    compiled = []
    monkeypatch.setattr(
        compiler, "compile_object", lambda *args: compiled.append(1) or compile_object(*args)
    )
    new = Kernel(twice.function)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(new, [1, 2, 3, 4])) == [2, 4, 6, 8]
    assert len(compiled) == 1


def test_a_kernel_runs_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compiled_code_dirs", lambda: [Path("/proc/nowhere")])
    assert Kernel(twice.function)(-4) == -8
    assert Kernel(twice.function)(0.5) == 1.0


def test_after_warming_up_nothing_is_compiled_and_nothing_needs_numba(tmp_path: Path) -> None:
    if runtime.choose_kernel_path() != "screened":
        pytest.skip("this CPU has no AVX2")
    environment = {**os.environ, "MINISPLADE_CACHE": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    warm = [sys.executable, "-m", "minisplade", "warmup"]
    run = subprocess.run(warm, env=environment, capture_output=True, text=True, check=True)
    assert "ready" in run.stderr and list((tmp_path / "kernels").glob("*.o"))
    using = [sys.executable, "-c", ENCODE, str(GOLDEN)]
    run = subprocess.run(using, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"
    searching = [sys.executable, "-c", SEARCH, str(tmp_path / "index")]
    run = subprocess.run(searching, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"


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
