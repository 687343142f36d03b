"""Models written anew as one canonical folder, and checked against vectors that they must give."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisplade.checkpoint import read_any_json
from minisplade.encoder import SparseEncoder
from minisplade.errors import CheckpointError, InputError
from minisplade.files import replacing
from minisplade.hub import find_model
from minisplade.runtime import KERNEL_PATHS, KernelPath, choose_kernel_path
from minisplade.saving import json_bytes
from minisplade.vectors import SparseVector

EXPECTED_VECTORS = "expected_vectors.json"
TOLERANCE = 1e-5
TEXTS = (
    "how many tablespoons of garlic powder are in an ounce",
    "The inverted index lists, for every term, the documents that contain it.",
    "Zürich's naïve café — “closed” since 1999, 日本語, العربية, \N{GRINNING FACE}",
    "def add(a, b): return a + b",
    "water boils at 100 degrees celsius and freezes at 0 " * 3,
)


@dataclass(frozen=True, slots=True)
class Check:
    """How far the vectors of one kernel path are from those that are expected."""

    kernel_path: str
    num_vectors: int
    largest_difference: float
    tolerance: float

    @property
    def is_right(self) -> bool:
        """Whether no weight is further off than the tolerance."""
        return self.largest_difference <= self.tolerance


def convert_model(
    source: str | os.PathLike[str], target: str | os.PathLike[str], float16: bool = False
) -> float:
    """Write a model as safetensors, tokenizer.json and the files of sentence-transformers.

    source: as in SparseEncoder; target: a folder that is new or empty; float16: round the weights
    to half the size. Also writes EXPECTED_VECTORS, what the new folder makes of a few texts on the
    reference path. Returns the largest difference of a weight in those vectors between source and
    target. Raises InputError for a target that has content, and what SparseEncoder raises.
    """
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{target} is there already and not an empty folder; give a new name")
    original = SparseEncoder(source, kernel_path="reference")
    original.save_pretrained(folder, float16=float16)
    written = SparseEncoder(folder, kernel_path="reference")
    rows, largest = [], 0.0
    for task in ("query", "document"):
        before, after = original.encode(TEXTS, task=task), written.encode(TEXTS, task=task)
        largest = max(largest, float(np.abs(before.toarray() - after.toarray()).max()))
        for text, vector in zip(TEXTS, after):
            weights = {str(i): float(f"{w:.9g}") for i, w in vector.to_dict().items()}
            rows.append({"text": text, "task": task, "weights": weights})
    with replacing(folder / EXPECTED_VECTORS) as file:
        file.write(json_bytes(rows))
    return largest


def verify_model(
    model: str | os.PathLike[str], vectors: str | os.PathLike[str] | None = None
) -> Iterator[Check]:
    """Compare what a model makes of texts with what it must, on every kernel path that it can take.

    vectors: a JSON list of {"text", "weights": {term id: weight}} with an optional "task", by which
    encode, encode_query or encode_document is meant; None is EXPECTED_VECTORS in the model's
    folder. Raises CheckpointError where there are none or they are something else.
    """
    folder = find_model(model)
    path = Path(vectors) if vectors is not None else folder / EXPECTED_VECTORS
    rows = read_any_json(path)
    if not isinstance(rows, list) or not rows:
        raise CheckpointError(f"{path} is not a list of texts and their weights")
    for kernel_path in _paths(folder):
        encoder = SparseEncoder(folder, kernel_path=kernel_path)
        gaps = [_gap(encoder, row, path) for row in rows]
        yield Check(kernel_path, len(rows), max(gaps), TOLERANCE)


def _paths(folder: Path) -> list[KernelPath]:
    """Return the kernel paths that a model can take here, from slow to fast."""
    fastest = SparseEncoder(folder, kernel_path=None).kernel_path
    paths = list(KERNEL_PATHS)
    return paths[: paths.index(min(fastest, choose_kernel_path(), key=paths.index)) + 1]


def _gap(encoder: SparseEncoder, row: Any, path: Path) -> float:
    """Return the largest difference of a weight, relative to 1 or to a third of the heaviest."""
    try:
        text, weights = str(row["text"]), {int(i): float(w) for i, w in row["weights"].items()}
        task = row.get("task")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} has a row without text and weights: {error!r}") from error
    expected = np.zeros(encoder.get_embedding_dimension(), dtype=np.float32)
    if weights and not 0 <= min(weights) <= max(weights) < expected.size:
        raise CheckpointError(f"{path} has weights for terms that the model does not know")
    expected[list(weights)] = list(weights.values())
    vector: SparseVector = encoder.encode(text, task=task)
    # Sums over many tokens are larger than maxima, and so is their rounding.
    scale = max(1.0, float(expected.max(initial=0)) / 4)
    return float(np.abs(vector.toarray() - expected).max(initial=0)) / scale
