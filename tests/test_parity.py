"""Live comparison with transformers and sentence-transformers; `make parity` runs it."""

import copy
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisplade import SparseEncoder, SparseVectors
from minisplade.runtime import KERNEL_PATHS, choose_kernel_path
from minisplade.tokenization import pad, tokenize

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("default"),  # of the reference's own imports
]

HIDDEN_TOLERANCE = LOGITS_TOLERANCE = 2e-5
WEIGHTS_TOLERANCE = 1e-5
ODD_TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\N{ROCKET}",
    "日本語 and العربية, naïve café",
    "x" * 1000,
    "[MASK] [SEP] ##ing",
    "line\nbreak\ttab\r\n",
    "every good boy deserves favour " * 4000,
]


@pytest.fixture(scope="module")
def passages(data: Path) -> list[str]:
    """500 real passages: books, and the longer abstracts of scifact."""
    texts = []
    for name, count in (("books", 350), ("scifact", 150)):
        with gzip.open(data / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            for _, line in zip(range(count), lines, strict=False):
                row = json.loads(line)
                texts.append(f"{row.get('title') or ''} {row['text']}".strip())
    return texts


def reference(folder: Path) -> Any:
    """Load a folder with sentence-transformers, in float32 on the CPU."""
    import torch
    from sentence_transformers import SparseEncoder as Reference

    return Reference(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )


def on_every_path(encoder: SparseEncoder) -> list[SparseEncoder]:
    """Load the same folder once for each kernel path that runs here."""
    paths = list(KERNEL_PATHS)
    usable = paths[: paths.index(choose_kernel_path()) + 1]
    return [SparseEncoder(encoder.folder, kernel_path=path) for path in usable]


def assert_same_weights(ours: SparseEncoder, theirs: Any, texts: list[str]) -> None:
    expected = theirs.encode(texts, convert_to_sparse_tensor=False).numpy()
    # Sums over hundreds of tokens are larger than maxima, and so is their rounding.
    scale = max(1.0, float(expected.max()) / 4) if ours.strategy == "sum" else 1.0
    for encoder in on_every_path(ours):
        found = encoder.encode(texts).toarray()
        assert np.abs(found - expected).max() <= WEIGHTS_TOLERANCE * scale, encoder.kernel_path


def assert_same_layers(ours: SparseEncoder, theirs: Any, texts: list[str]) -> None:
    """Compare token ids, hidden states and logits, in padded batches, at all tokens.

    The reference runs in float64 for the absolute tolerance: with splade-tiny's weights its own
    float32 logits are up to 1.9e-5 away from that, at logits near -20. Against float32 the
    rounding of both sides counts, which grows with the size of the logit.
    """
    import torch

    config = ours.model.config
    exact = copy.deepcopy(theirs[0].model).double()
    for start in range(0, len(texts), 10):
        chunk = texts[start : start + 10]
        batch = pad(tokenize(ours.tokenizer, chunk, ours.max_seq_length), config.pad_token_id)
        cut = {"padding": True, "truncation": True, "max_length": ours.max_seq_length}
        tokens = theirs.tokenizer(chunk, return_tensors="pt", **cut)
        assert np.array_equal(batch.input_ids, tokens["input_ids"].numpy())
        assert np.array_equal(batch.attention_mask, tokens["attention_mask"].numpy() == 1)
        mask = batch.attention_mask
        states = ours.model.hidden_states(batch.input_ids, mask)[mask]
        logits = ours.model.logits(batch.input_ids, mask)[mask]
        for model, per_logit in ((exact, 0.0), (theirs[0].model, 1e-6)):
            with torch.no_grad():
                output = model(**tokens, output_hidden_states=True)
            gap = np.abs(states - output.hidden_states[-1].numpy()[mask])
            assert gap.max() <= HIDDEN_TOLERANCE
            expected = output.logits.numpy()[mask]
            gap = np.abs(logits - expected) - per_logit * np.abs(expected)
            assert gap.max() <= LOGITS_TOLERANCE


@pytest.fixture(scope="module")
def splade_tiny(encoder: SparseEncoder) -> Any:
    return reference(encoder.folder)


def test_layers_of_splade_tiny(
    encoder: SparseEncoder, splade_tiny: Any, passages: list[str]
) -> None:
    assert_same_layers(encoder, splade_tiny, passages)


def test_weights_of_splade_tiny(
    encoder: SparseEncoder, splade_tiny: Any, passages: list[str]
) -> None:
    assert_same_weights(encoder, splade_tiny, passages)


def test_weights_and_support_against_float64(
    encoder: SparseEncoder, splade_tiny: Any, passages: list[str]
) -> None:
    """What is active does not hang on rounding, and weights are right to 1e-5, on every path."""
    import torch

    exact = copy.deepcopy(splade_tiny[0].model).double()
    texts = passages[::4]
    expected = np.zeros((len(texts), encoder.get_embedding_dimension()))
    for row, text in enumerate(texts):
        ids = torch.tensor([encoder.tokenize([text])["input_ids"][0].tolist()])
        with torch.no_grad():
            expected[row] = exact(input_ids=ids).logits[0].max(dim=0).values.numpy()
    certain = np.abs(expected) > 1e-5
    weights = np.log1p(np.maximum(expected, 0))
    for ours in on_every_path(encoder):
        found = ours.encode(texts).toarray()
        assert np.array_equal((found > 0)[certain], (expected > 0)[certain]), ours.kernel_path
        gap = float(np.abs(found - weights).max())
        sys.stdout.write(f"{ours.kernel_path}: {gap:.1e} from float64\n")
        assert gap <= WEIGHTS_TOLERANCE, ours.kernel_path


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts(encoder: SparseEncoder, splade_tiny: Any, text: str) -> None:
    assert_same_weights(encoder, splade_tiny, [text])


def test_the_rest_of_the_interface(encoder: SparseEncoder, splade_tiny: Any) -> None:
    texts = ["a cat", "the dog barks", "cats and dogs"]
    ours, theirs = encoder.encode(texts), splade_tiny.encode(texts)
    for name in ("similarity", "similarity_pairwise"):
        expected = getattr(splade_tiny, name)(theirs, theirs).numpy()
        assert getattr(encoder, name)(ours, ours) == pytest.approx(expected, abs=1e-4)
    for mine, other in zip(encoder.decode(ours), splade_tiny.decode(theirs), strict=True):
        assert [term for term, _ in mine] == [term for term, _ in other]
        assert [w for _, w in mine] == pytest.approx([w for _, w in other], abs=1e-5)
    assert encoder.sparsity(ours) == pytest.approx(splade_tiny.sparsity(theirs))
    pruned = splade_tiny.encode(texts, max_active_dims=5).to_dense().numpy()
    assert np.abs(encoder.encode(texts, max_active_dims=5).toarray() - pruned).max() < 1e-5
    common = splade_tiny.intersection(theirs[0], theirs[2]).to_dense().numpy()
    assert np.abs(encoder.intersection(ours[0], ours[2]).toarray() - common).max() < 1e-5


SHAPES = [
    # kind, layers, hidden, heads, feed-forward, strategy, activation, tied
    ("bert", 1, 12, 1, 7, "max", "relu", True),
    ("bert", 5, 64, 8, 96, "max", "log1p_relu", False),
    ("bert", 4, 256, 4, 1024, "sum", "relu", True),
    ("distilbert", 1, 18, 3, 50, "max", "relu", False),
    ("distilbert", 6, 96, 6, 200, "sum", "log1p_relu", True),
    ("distilbert", 2, 768, 12, 3072, "max", "relu", True),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_random_checkpoints(
    shape: tuple[Any, ...], encoder: SparseEncoder, passages: list[str], tmp_path: Path
) -> None:
    theirs = random_reference(shape, encoder.folder, tmp_path / "plain")
    theirs.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    ours = SparseEncoder(tmp_path / "saved")
    texts = [*ODD_TEXTS, *passages[:20]]
    assert_same_layers(ours, theirs, texts)
    ours.model.params["head.decoder.bias"] = ours.model.params["head.decoder.bias"] - 0.5
    assert (ours.encode(texts[:3]).toarray() != theirs.encode(texts[:3]).to_dense().numpy()).any()
    assert_same_weights(SparseEncoder(tmp_path / "saved"), theirs, texts)


def random_reference(shape: tuple[Any, ...], tokenizer_folder: Path, folder: Path) -> Any:
    """Write a seeded random checkpoint with transformers; return the reference encoder of it."""
    import torch
    import transformers
    from sentence_transformers import SparseEncoder as Reference
    from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling

    kind, layers, hidden, heads, inner, strategy, activation, tied = shape
    common = {"vocab_size": 30522, "max_position_embeddings": 128, "tie_word_embeddings": tied}
    if kind == "bert":
        model = transformers.BertForMaskedLM(
            transformers.BertConfig(
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=inner,
                **common,
            )
        )
    else:
        model = transformers.DistilBertForMaskedLM(
            transformers.DistilBertConfig(
                dim=hidden,
                n_layers=layers,
                n_heads=heads,
                hidden_dim=inner,
                **common,
            )
        )
    torch.manual_seed(layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            spread = 1 / hidden**0.5 if parameter.ndim == 2 else 0.1
            parameter.copy_(torch.randn_like(parameter) * spread + centre)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder))
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    modules = [MLMTransformer(str(folder)), SpladePooling(strategy, activation)]
    return Reference(modules=modules, device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompts": {"query": "find: ", "document": "read: "}, "max_active_dims": 30},
    ],
)
def test_the_reference_loads_what_we_save(
    encoder: SparseEncoder, settings: dict[str, Any], tmp_path: Path
) -> None:
    ours = SparseEncoder(encoder.folder, **settings)
    ours.max_seq_length = 20
    ours.save_pretrained(tmp_path / "saved")
    theirs = reference(tmp_path / "saved")
    assert theirs.max_seq_length == 20
    texts = ["how do I compress a file", "a long text " * 30]
    for task in ("encode_query", "encode_document"):
        expected = getattr(theirs, task)(texts).to_dense().numpy()
        assert np.abs(getattr(ours, task)(texts).toarray() - expected).max() <= WEIGHTS_TOLERANCE
    assert theirs.get_embedding_dimension() == ours.get_embedding_dimension()


def test_our_vectors_come_from_their_tensors(encoder: SparseEncoder, splade_tiny: Any) -> None:
    tensor = splade_tiny.encode(["a cat", "a dog"]).to_dense().numpy()
    assert np.abs(SparseVectors.from_dense(tensor).toarray() - tensor).max() == 0
