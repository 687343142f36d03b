"""A cache of encoded vectors on disk, by model and text, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from minisplade.arrays import ByteArray
from minisplade.encoder import SparseEncoder
from minisplade.errors import IndexFormatError
from minisplade.files import read_arrays, write_arrays
from minisplade.vectors import SparseVectors, concatenate

FORMAT = "minisplade-vector-cache"
FORMAT_VERSION = 1

BLOCK_TEXTS = 1024
"""Texts that are encoded before they are written; a stopped run loses no more."""

DIGEST_BYTES = 16

PROBE = (
    "What does a model make of this? Seven wizards cross the ocean, and a doctor compresses files."
)

logger = logging.getLogger("minisplade")


class VectorCache:
    """The vectors that one model gave to texts, in files of one folder."""

    def __init__(self, folder: str | os.PathLike[str], encoder: SparseEncoder) -> None:
        """Find what the folder holds for this model; it and its files are made when needed."""
        self.encoder = encoder
        self.model = fingerprint(encoder)
        self.folder = Path(folder) / self.model
        self.places: dict[bytes, tuple[int, int]] = {}
        self.blocks: list[SparseVectors] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self._add(*_read(path, encoder.get_embedding_dimension()))
            except IndexFormatError as error:
                logger.warning("%s; its texts are encoded again", error)

    def encode_query(
        self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> SparseVectors:
        """Encode as encoder.encode_query, but each text only once."""
        return self._encode("query", texts, None, on_progress)

    def encode_document(
        self,
        texts: Sequence[str],
        max_seq_length: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> SparseVectors:
        """Encode as encoder.encode_document, but each text only once."""
        return self._encode("document", texts, max_seq_length, on_progress)

    def _encode(
        self,
        side: Literal["query", "document"],
        texts: Sequence[str],
        max_seq_length: int | None,
        on_progress: Callable[[int], None] | None,
    ) -> SparseVectors:
        encoder = self.encoder
        is_query = side == "query"
        encode = encoder.encode_query if is_query else encoder.encode_document
        prompt = encoder.query_prompt if is_query else encoder.document_prompt
        how = f"{side} {max_seq_length or encoder.max_seq_length} {len(prompt)} {prompt}"
        keys = [_digest(how + text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts) if key not in self.places}
        for block in _blocks(list(missing.items())):
            vectors = encode(
                [text for _, text in block],
                max_seq_length=max_seq_length,
                show_progress_bar=False,
            )
            digests = [key for key, _ in block]
            _write(self.folder / f"{uuid4().hex}.safetensors", digests, vectors)
            self._add(digests, vectors)
            if on_progress:
                on_progress(len(block))
        return self._gather(keys)

    def _add(self, digests: Sequence[bytes], vectors: SparseVectors) -> None:
        for row, digest in enumerate(digests):
            self.places[digest] = len(self.blocks), row
        self.blocks.append(vectors)

    def _gather(self, keys: Sequence[bytes]) -> SparseVectors:
        """Return the vectors of some texts, in their order."""
        if not keys:
            return concatenate([], self.encoder.get_embedding_dimension())
        places = np.array([self.places[key] for key in keys])  # (texts, 2)
        used, own = np.unique(places[:, 0], return_inverse=True)
        blocks = [self.blocks[i] for i in used]
        starts = np.cumsum([0, *(len(block) for block in blocks)])
        return concatenate(blocks)[starts[own] + places[:, 1]]


def fingerprint(encoder: SparseEncoder) -> str:
    """Return a name for what decides a model's vectors.

    That is the contents of all files in its folder, and what it makes of PROBE, which tells other
    settings and another model for queries.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in encoder.folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(encoder.folder)}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    for vector in (encoder.encode_query(PROBE), encoder.encode_document(PROBE)):
        digest.update(vector.term_ids.tobytes() + vector.weights.tobytes())
    return digest.hexdigest()[: 2 * DIGEST_BYTES]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def _blocks(items: list[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    return (items[i : i + BLOCK_TEXTS] for i in range(0, len(items), BLOCK_TEXTS))


def _write(path: Path, digests: Sequence[bytes], vectors: SparseVectors) -> None:
    hashes: ByteArray = np.frombuffer(b"".join(digests), dtype=np.uint8)
    arrays: dict[str, Any] = {
        "digests": hashes.reshape(-1, DIGEST_BYTES),
        "offsets": vectors.offsets,
        "term_ids": vectors.term_ids,
        "weights": vectors.weights,
    }
    write_arrays(path, arrays, FORMAT, FORMAT_VERSION, {"num_terms": str(vectors.num_terms)})


def _read(path: Path, num_terms: int) -> tuple[list[bytes], SparseVectors]:
    """Read a file that _write wrote; raises IndexFormatError."""
    arrays, _ = read_arrays(path, FORMAT, FORMAT_VERSION)
    try:
        rows = SparseVectors(
            arrays["offsets"], arrays["term_ids"], arrays["weights"], num_terms
        ).check()
        digests = arrays["digests"]
        if digests.dtype != np.uint8 or digests.shape != (len(rows), DIGEST_BYTES):
            raise ValueError(f"{len(rows)} vectors with digests of shape {digests.shape}")
    except (KeyError, ValueError) as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    return [bytes(row) for row in digests], rows
