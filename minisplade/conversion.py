"""Models written anew as one canonical folder, and checked against vectors that they must give."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisplade.arrays import FloatArray
from minisplade.checkpoint import read_any_json
from minisplade.encoder import SparseEncoder
from minisplade.errors import CheckpointError, InputError
from minisplade.files import replacing
from minisplade.hub import find_model
from minisplade.layout import read_optional
from minisplade.models.names import classifies
from minisplade.reranker import CrossEncoder
from minisplade.runtime import KERNEL_PATHS, KernelPath
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

    source: as in SparseEncoder, or a cross-encoder; target: a folder that is new or empty; float16:
    round the weights to half the size. Also writes EXPECTED_VECTORS, what the new folder makes of
    a few texts on the reference path. Returns the largest difference of a number in those between
    source and target. Raises InputError for a target that has content, and what SparseEncoder
    raises.
    """
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{target} is there already and not an empty folder; give a new name")
    original = _load(find_model(source), "reference")
    original.save_pretrained(folder, float16=float16)
    written = _load(folder, "reference")
    rows = []
    largest = 0.0
    for row in _tasks(original):
        before, after = _outputs(original, row), _outputs(written, row)
        largest = max(largest, float(np.abs(before - after).max()))
        digits = {int(i): float(f"{after[i]:.9g}") for i in np.flatnonzero(after)}
        rows.append({**row, "weights": digits})
    with replacing(folder / EXPECTED_VECTORS) as file:
        file.write(json_bytes(rows))
    return largest


def _load(folder: Path, kernel_path: str | None) -> SparseEncoder | CrossEncoder:
    """Load a model by the class that its files ask for."""
    if classifies(read_optional(folder / "config.json")):
        return CrossEncoder(folder, kernel_path=kernel_path)
    return SparseEncoder(folder, kernel_path=kernel_path)


def _tasks(model: SparseEncoder | CrossEncoder) -> list[dict[str, str]]:
    """Return what a model is asked for the vectors that are kept with it."""
    if isinstance(model, CrossEncoder):
        return [{"query": TEXTS[0], "text": text} for text in TEXTS]
    return [{"task": task, "text": text} for task in ("query", "document") for text in TEXTS]


def _outputs(model: SparseEncoder | CrossEncoder, row: Mapping[str, Any]) -> FloatArray:
    """Return the numbers that a model makes of a row: a dense vector (V,), or scores (C,)."""
    if isinstance(model, CrossEncoder):
        pair = str(row["query"]), str(row["text"])
        return np.atleast_1d(model.predict(pair, activation="identity"))
    vector: SparseVector = model.encode(str(row["text"]), task=row.get("task"))
    return vector.toarray()


def verify_model(
    model: str | os.PathLike[str], vectors: str | os.PathLike[str] | None = None
) -> Iterator[Check]:
    """Compare what a model makes of texts with what it must, on every kernel path that it can take.

    vectors: a JSON list of {"text", "weights": {term id: weight}} with an optional "task", "query"
    or "document"; for a cross-encoder, of {"query", "text", "weights": {class: logit}}; None is
    EXPECTED_VECTORS in the model's folder. Raises CheckpointError where there are none or they are
    something else.
    """
    folder = find_model(model)
    path = Path(vectors) if vectors is not None else folder / EXPECTED_VECTORS
    rows = read_any_json(path)
    if not isinstance(rows, list) or not rows:
        raise CheckpointError(f"{path} is not a list of texts and their weights")
    for kernel_path in _paths(folder):
        encoder = _load(folder, kernel_path)
        gaps = [_gap(encoder, row, path) for row in rows]
        yield Check(kernel_path, len(rows), max(gaps), TOLERANCE)


def _paths(folder: Path) -> list[KernelPath]:
    """Return the kernel paths that a model can take here, from slow to fast."""
    paths = list(KERNEL_PATHS)
    return paths[: paths.index(_load(folder, None).kernel_path) + 1]


def _gap(model: SparseEncoder | CrossEncoder, row: Any, path: Path) -> float:
    """Return the largest difference of a number, in fourths of the largest where that is above 4.

    Sums over many tokens are larger than maxima, and so is their rounding.
    """
    try:
        weights = {int(i): float(w) for i, w in row["weights"].items()}
        found = _outputs(model, row)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} has a row without text and weights: {error!r}") from error
    if weights and not 0 <= min(weights) <= max(weights) < found.size:
        raise CheckpointError(f"{path} has weights for terms that the model does not know")
    expected = np.zeros_like(found)
    expected[list(weights)] = list(weights.values())
    scale = max(1.0, float(np.abs(expected).max(initial=0)) / 4)
    return float(np.abs(found - expected).max(initial=0)) / scale
