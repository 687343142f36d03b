"""What an index asks of the model that turns its texts and queries into vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol, overload

from minisplade.errors import InputError
from minisplade.index.manifest import EncoderEntry
from minisplade.vectors import SparseVector, SparseVectors


class Encoder(Protocol):
    """What an index asks of the model that turns its texts and queries into vectors."""

    name: str

    @property
    def terms(self) -> Sequence[str]:
        """The vocabulary: what each dimension of the vectors stands for."""
        ...

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Yield the vectors of documents, in blocks."""
        ...


def entry_of(encoder: Encoder) -> EncoderEntry:
    """Return what an index remembers of its encoder."""
    # The Hugging Face cache has each revision in a folder of its own, snapshots/<commit>.
    folder: Path | None = getattr(encoder, "folder", None)
    revision = folder.name if folder and folder.parent.name == "snapshots" else None
    vocabulary = sha256(json.dumps(list(encoder.terms)).encode()).hexdigest()
    return EncoderEntry(encoder.name, revision, vocabulary)


def check_encoder(encoder: Encoder, entry: EncoderEntry, num_terms: int | None) -> None:
    """Raise InputError for an encoder whose vocabulary is not that of the index."""
    if num_terms is not None and len(encoder.terms) != num_terms:
        raise InputError(
            f"{encoder.name} has {len(encoder.terms)} terms, this index has {num_terms}; it was "
            f"made with {entry.name or 'another model'}"
        )
    if entry.vocabulary is not None and entry_of(encoder).vocabulary != entry.vocabulary:
        raise InputError(
            f"{encoder.name} has another vocabulary than {entry.name}, which this index was made "
            "with; open it with that model"
        )
