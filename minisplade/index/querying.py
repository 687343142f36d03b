"""Queries to a snapshot: which documents may be found, and the hits among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisplade.arrays import BoolArray
from minisplade.errors import InputError
from minisplade.index.filters import Condition, Filter, matching
from minisplade.index.hits import Hits
from minisplade.index.parts import Parts
from minisplade.index.search import (
    SearchOptions,
    drop_light_terms,
    search_parts,
    search_parts_many,
)
from minisplade.index.snapshot import Snapshot
from minisplade.vectors import SparseVector, SparseVectors


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The documents of one snapshot that a search may return; make it once, use it often."""

    snapshot: Snapshot
    parts: Parts  # of the snapshot, with filters that leave out what is deleted too


def select(snapshot: Snapshot, documents: BoolArray | Condition | Iterable[str]) -> Selection:
    """Choose documents by number, bool (N,), by a condition on metadata, or by key.

    Raises InputError.
    """
    num_docs = int(snapshot.starts[-1])
    if isinstance(documents, Mapping):
        masks = [
            matching(documents, segment.contents.documents, segment.num_docs)
            for segment in snapshot.segments
        ]
    else:
        if not isinstance(documents, np.ndarray):
            documents = _mask_of(snapshot, documents)
        whole = Filter.from_mask(documents, num_docs).allowed
        masks = np.split(whole, snapshot.starts[1:-1]) if snapshot.segments else []
    filters = [
        Filter.from_mask(mask & segment.live_mask, segment.num_docs)
        for mask, segment in zip(masks, snapshot.segments, strict=True)
    ]
    return Selection(snapshot, snapshot.parts.filtered(filters))


def _mask_of(snapshot: Snapshot, keys: Iterable[str]) -> BoolArray:
    if isinstance(keys, str):
        raise InputError(f"filter is the string {keys!r}; expected a list of keys")
    asked = list(keys)
    found = snapshot.find(asked)
    for key in asked:
        if key not in found:
            raise InputError(f"filter names {key!r}, which is not in this index")
    mask = np.zeros(int(snapshot.starts[-1]), dtype=np.bool_)
    mask[list(found.values())] = True
    return mask


def find_hits(
    snapshot: Snapshot,
    vectors: SparseVector | SparseVectors,
    options: SearchOptions,
    documents: Any = None,
) -> Hits | list[Hits]:
    """Search for one vector, which gives Hits, or for several, which give a list of them.

    documents: a Selection, or what select takes; None for all. Raises InputError.
    """
    parts = snapshot.parts
    if documents is not None:
        chosen = documents if isinstance(documents, Selection) else select(snapshot, documents)
        if chosen.snapshot is not snapshot:
            raise InputError(
                "filter was made for another index, or before this one changed; make it again"
            )
        parts = chosen.parts
    if parts.members and vectors.num_terms != parts.num_terms:
        raise InputError(
            f"query has {vectors.num_terms} terms, index has {parts.num_terms}; "
            "encode both with the same model"
        )
    if isinstance(vectors, SparseVectors):
        return _search_all(snapshot, parts, vectors.check(), options)
    lost = 0.0
    if options.epsilon:
        vectors, lost = drop_light_terms(parts, vectors, options.epsilon)
    return Hits(*search_parts(parts, vectors, options), snapshot, options.alpha, lost)


def _search_all(
    snapshot: Snapshot, parts: Parts, queries: SparseVectors, options: SearchOptions
) -> list[Hits]:
    lost = [0.0] * len(queries)
    if options.epsilon:
        shorter = [drop_light_terms(parts, query, options.epsilon) for query in queries]
        queries = SparseVectors.from_rows([query for query, _ in shorter], queries.num_terms)
        lost = [bound for _, bound in shorter]
    found = search_parts_many(parts, queries, options)
    return [Hits(*one, snapshot, options.alpha, bound) for one, bound in zip(found, lost)]
