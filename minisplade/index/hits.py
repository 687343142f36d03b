"""What a search returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from minisplade.arrays import FloatArray, IdArray
from minisplade.index.documents import Document, document_of
from minisplade.index.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found."""

    key: str
    score: float
    doc_id: int
    text: str | None = None  # where the index keeps texts
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Hits(Sequence[Hit]):
    """The documents found for one query, best first; equal scores in document order.

    Keys, texts and metadata are read when they are asked for, as they were when the search was
    made. What is promised for scores: the one at each rank is at least alpha times (s - epsilon),
    s being the score of the best possible document there; 1 and 0 for an exact search.
    """

    doc_ids: IdArray  # int32 (k,) or fewer
    scores: FloatArray  # float32, as many
    snapshot: Snapshot
    alpha: float = 1.0
    epsilon: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the documents found."""
        return tuple(key for key, _, _ in self.snapshot.rows(self.doc_ids))

    @property
    def texts(self) -> tuple[str | None, ...]:
        """Their texts, None where the index keeps none."""
        return tuple(text for _, text, _ in self.snapshot.rows(self.doc_ids))

    @property
    def documents(self) -> list[Document]:
        """The documents found, with their metadata."""
        return [document_of(row) for row in self.snapshot.rows(self.doc_ids)]

    def __len__(self) -> int:
        """Count the documents found."""
        return self.doc_ids.size

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        """Return the hit at a rank, 0 being the best, or several."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        doc_id = int(self.doc_ids[place])
        found = document_of(self.snapshot.rows([doc_id])[0])
        score = float(self.scores[place])
        return Hit(found.key, score, doc_id, found.text, found.metadata)
