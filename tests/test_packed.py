"""The compiled encoder against the reference path, and what it promises beside equality."""

import json
import multiprocessing
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import conftest
import numpy as np
import pytest
from conftest import CHECKPOINTS as ALL_CHECKPOINTS
from conftest import GOLDEN
from uncompiled import assert_passes_uncompiled

from minisplade import InputError, SparseEncoder, SparseVectors
from minisplade.models import MaskedLanguageModel, body
from minisplade.models import packed as packed_module
from minisplade.models.bert import BertConfig
from minisplade.models.names import param_shapes
from minisplade.pooling import splade_pool
from minisplade.runtime import KERNEL_PATHS, choose_kernel_path, cpu_features

COMPILED = [
    "tiles",
    pytest.param(
        "screened",
        marks=pytest.mark.skipif("avx2" not in cpu_features(), reason="this CPU has no AVX2"),
    ),
]
UNPACKED = ("albert",)
CHECKPOINTS = [name for name in ALL_CHECKPOINTS if name not in UNPACKED]
TEXTS = [*conftest.TEXTS, "on the mat"]
MANY = [f"{TEXTS[i % 7]} number {i} of the texts {'and more ' * (i % 13)}" for i in range(150)]


@pytest.fixture(params=COMPILED)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_golden_checkpoints(path: str, checkpoint: str) -> None:
    reference = SparseEncoder(GOLDEN / checkpoint, kernel_path="reference").encode(TEXTS)
    vectors = SparseEncoder(GOLDEN / checkpoint, kernel_path=path).encode(TEXTS).check()
    expected = reference.toarray()
    scale = max(1.0, float(expected.max()) / 4)  # sums over 40 tokens are larger than maxima
    assert np.abs(vectors.toarray() - expected).max() < 1e-5 * scale


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_both_compiled_paths_give_the_same_bytes(checkpoint: str) -> None:
    if choose_kernel_path() != "screened":
        pytest.skip("this CPU has no AVX2")
    tiles, screened = (
        SparseEncoder(GOLDEN / checkpoint, kernel_path=p).encode(TEXTS) for p in COMPILED_NAMES
    )
    assert tiles == screened


COMPILED_NAMES = [name for name in KERNEL_PATHS if name != "reference"]


@pytest.mark.parametrize("checkpoint", UNPACKED)
def test_what_is_not_compiled_runs_on_the_reference_path(path: str, checkpoint: str) -> None:
    assert SparseEncoder(GOLDEN / checkpoint).kernel_path == "reference"
    with pytest.raises(InputError, match=f"kernel path '{path}' does not know the architecture"):
        SparseEncoder(GOLDEN / checkpoint, kernel_path=path)


PLAIN = BertConfig(31, 24, 2, 2, 40, 50, 2, 1e-5)
ROTARY = replace(PLAIN, gated=True, rotary_bases=(100.0, 1e4), num_token_types=0)
CONFIGS = [
    PLAIN,
    replace(PLAIN, hidden_size=40, num_heads=5, intermediate_size=7, position_offset=2),
    ROTARY,
    replace(ROTARY, rotary_scaling=3.0, intermediate_size=17, num_token_types=1),
    replace(ROTARY, pre_norm=True, windows=(3, None), without_bias=frozenset(["norm", "up"])),
    replace(ROTARY, pre_norm=True, hidden_size=36, num_heads=3, intermediate_size=52),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_sizes_that_fill_no_panel(path: str, config: BertConfig) -> None:
    rng = np.random.default_rng(config.intermediate_size)
    params = {
        name: (rng.standard_normal(shape) / 4 + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in param_shapes(config).items()
    }
    model = MaskedLanguageModel(config, params, {})
    sequences = [rng.integers(1, 31, size).astype(np.int32) for size in (50, 1, 29)]
    packed = packed_module.pack_model(model, path == "screened")
    found = packed_module.encode(packed, sequences, "max", "relu", 1, 1 << 30).toarray()
    for row, ids in zip(found, sequences, strict=True):
        mask = np.ones((1, ids.size), dtype=bool)
        expected = splade_pool(model.logits(ids[None], mask), mask)[0]
        assert np.abs(row - expected).max() < 1e-5


@pytest.mark.parametrize("checkpoint", ["modernbert", "modernbert-biased", "gte"])
def test_rotary_positions_and_windows_in_long_texts(
    path: str, checkpoint: str, tmp_path: Path
) -> None:
    """Blocks of queries begin far into the text, and see keys on both sides of them."""
    shutil.copytree(GOLDEN / checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 400}))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 400}')
    texts = ["the cat sat on the mat and judge black wizards " * n for n in (20, 3, 9)]
    reference = SparseEncoder(tmp_path, kernel_path="reference")
    assert reference.tokenize(texts)["attention_mask"].sum(axis=1).max() > 250
    found = SparseEncoder(tmp_path, kernel_path=path).encode(texts)
    assert np.abs(found.toarray() - reference.encode(texts).toarray()).max() < 1e-5


def test_padding_inside_a_text_keeps_its_place(path: str) -> None:
    """RoBERTa does not count padding, even where a text has it by name."""
    texts = ["the <pad> cat<pad><pad> sat", "<pad>", "on <pad>"]
    reference = SparseEncoder(GOLDEN / "roberta", kernel_path="reference")
    ids = reference.tokenize(texts)["input_ids"]
    assert np.count_nonzero(ids[0] == reference.model.config.pad_token_id) == 3
    found = SparseEncoder(GOLDEN / "roberta", kernel_path=path).encode(texts).toarray()
    assert np.abs(found - reference.encode(texts).toarray()).max() < 1e-5


@pytest.mark.parametrize("checkpoint", ["bert", "modernbert", "gte"])
def test_bytes_do_not_depend_on_batch_order_neighbours_or_threads(
    path: str, checkpoint: str
) -> None:
    alone = SparseEncoder(GOLDEN / checkpoint, kernel_path=path, num_threads=1)
    texts = MANY[:40]
    expected = [alone.encode(text) for text in texts]
    for threads in (1, 2, 5):
        encoder = SparseEncoder(GOLDEN / checkpoint, kernel_path=path, num_threads=threads)
        together = encoder.encode(texts)
        assert all(together[i] == vector for i, vector in enumerate(expected))
        order = np.random.default_rng(threads).permutation(len(texts))
        shuffled = encoder.encode([texts[i] for i in order], batch_size=threads)
        assert all(shuffled[j] == expected[i] for j, i in enumerate(order))


@pytest.mark.skipif("avx2" not in cpu_features(), reason="this CPU has no AVX2")
@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_learned_changes_no_bytes(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real weights, whose first columns rule terms out once the axes are known."""
    tiles = SparseEncoder(kernel_path="tiles").encode(MANY)
    monkeypatch.setattr(packed_module, "LEARN_FROM", 400)
    encoder = SparseEncoder(kernel_path="screened", num_threads=threads)
    assert encoder.encode(MANY) == tiles  # learns on the way
    screens = encoder.document_route.packed.screens  # type: ignore[union-attr]
    assert len(screens) == 2
    assert encoder.encode(MANY) == tiles
    assert len(screens) == 2
    columns = screens[1].value.depth_choices[screens[1].value.depths]
    assert columns.mean() < 100  # of 128: it was worth it


def test_chunks_are_cut_where_texts_or_rows_are_full(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=1)
    expected = encoder.encode(MANY)
    for texts in (1, 3):
        monkeypatch.setattr(packed_module, "CHUNK_TEXTS", texts)
        fresh = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=2)
        assert fresh.encode(MANY) == expected


def test_several_python_threads_share_an_encoder(path: str) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=2)
    expected = [encoder.encode(text) for text in MANY[:30]]
    wrong: list[int] = []

    def work(first: int) -> None:
        for i in range(first, 30, 4):
            if (
                encoder.encode(MANY[i]) != expected[i]
                or encoder.encode(MANY[:30])[i] != expected[i]
            ):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interrupted_text_leaves_nothing_to_the_next(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=1)
    expected = encoder.encode(TEXTS)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packed_module.head, "take_active", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode("Sphinx of black quartz, judge my vow!")
    assert encoder.encode(TEXTS) == expected


def _encode_in_child(
    folder: Path, path: str, queue: "multiprocessing.Queue[SparseVectors]"
) -> None:
    queue.put(SparseEncoder(folder, kernel_path=path, num_threads=2).encode(MANY[:40]))


def test_a_spawned_process_encodes(path: str) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_encode_in_child, args=(GOLDEN / "bert", path, queue))
    child.start()
    found = queue.get(timeout=120)
    child.join()
    expected = SparseEncoder(GOLDEN / "bert", kernel_path=path).encode(MANY[:40])
    assert found == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_goes_on_encoding(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=2)
    expected = encoder.encode(MANY[:40])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(encoder.encode(MANY[:40])))
    child.start()
    assert queue.get(timeout=120) == expected
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize("batch_size", [1, 10_000])
def test_memory_stays_within_its_budget(path: str, batch_size: int) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=3, max_memory_mb=1)
    texts = MANY * 4
    encoder.encode(texts[:100])
    results = encoder.encode(texts).size_bytes
    encoder.document_route.packed.idle.clear()
    tracemalloc.start()
    encoder.encode(texts, batch_size=batch_size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    token_arrays = 250 * len(texts)
    assert peak < 1e6 + 3 * results + token_arrays


def test_a_budget_that_one_text_does_not_fit_in_is_refused(path: str) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, max_memory_mb=0.01)
    with pytest.raises(InputError, match=r"a text of \d+ tokens needs .* MB .* raise max_memory"):
        encoder.encode(TEXTS)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InputError, match="max_memory_mb is"):
            SparseEncoder(GOLDEN / "bert", max_memory_mb=wrong)


def test_threads_take_what_the_budget_allows(path: str) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=8)
    rows = body.CHUNK_ROWS
    one = packed_module.workspace_bytes(encoder.document_route.packed, rows)
    encoder.max_memory_mb = 2.5 * one / 1e6
    expected = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=1).encode(MANY)
    assert encoder.encode(MANY) == expected
    assert len(encoder.document_route.packed.idle) <= 2


def test_a_stream_runs_in_flat_memory(path: str) -> None:
    encoder = SparseEncoder(GOLDEN / "bert", kernel_path=path, num_threads=1)

    def peak(count: int) -> int:
        def texts() -> Iterator[str]:
            return (MANY[i % len(MANY)] for i in range(count))

        tracemalloc.start()
        assert sum(len(block) for block in encoder.encode_stream(texts())) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1024)
    assert peak(4096) < 1.3 * peak(2048)


def test_dense_weights_leave_screening_and_stay_exact() -> None:
    """Where half of all logits are positive, no bound can help, and all are computed."""
    encoder = SparseEncoder(GOLDEN / "bert")
    encoder.model.params["head.decoder.bias"] = encoder.model.params["head.decoder.bias"] + 3
    reference = SparseEncoder(GOLDEN / "bert", kernel_path="reference")
    reference.model.params["head.decoder.bias"] = encoder.model.params["head.decoder.bias"]
    expected = reference.encode(TEXTS).toarray()
    assert (expected > 0).mean() > 0.5
    assert np.abs(encoder.encode(TEXTS).toarray() - expected).max() < 1e-5


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__, "golden or same_bytes or dense or refused")
