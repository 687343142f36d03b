"""Merging: neighbouring segments become one, while writers and readers go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from minisplade.arrays import BoolArray
from minisplade.index.lock import Lock
from minisplade.index.manifest import SegmentEntry
from minisplade.index.postings import Postings
from minisplade.index.publishing import (
    LOCK_NAME,
    MERGE_LOCK_NAME,
    Draft,
    collect_alone,
    drafts_of,
    new_draft,
    publish_drafts,
    remove_files,
    write_error,
    write_segment,
)
from minisplade.index.snapshot import Segment, Snapshot, open_snapshot
from minisplade.index.stream import build_from_stream
from minisplade.vectors import SparseVectors

WAIT_SECONDS = 60.0
"""How long a finished merge waits for a writer to commit."""

FAN_OUT = 8
"""So many neighbours of about one size are merged."""

SMALLEST_TIER = 1024
"""Segments of up to so many documents count as of one size."""


def choose_merge(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Choose the neighbouring segments, start to end, that had better be one; None for none.

    sizes: documents and live documents of each segment. Neighbours of about one size are merged, as
    in a log-structured merge-tree (O'Neil and others 1996), so that documents stay in their order,
    and none of them is more than half of the whole, so that large ones are seldom written again.
    Else it is a segment of which more than half is deleted.
    """
    tiers = [max(0, int(np.ceil(np.log2(max(1, live) / SMALLEST_TIER) / 3))) for _, live in sizes]
    for tier in sorted(set(tiers)):
        start = 0
        for end in range(len(tiers) + 1):
            if end == len(tiers) or tiers[end] > tier:
                own = [live for _, live in sizes[start:end]]
                if len(own) >= FAN_OUT and 2 * max(own) <= sum(own):
                    return start, end
                start = end + 1
    for place, (num_docs, live) in enumerate(sizes):
        if 2 * live < num_docs:
            return place, place + 1
    return None


def merge(
    folder: str, before: Snapshot, everything: bool = False, wait_seconds: float = 0.0
) -> bool:
    """Make neighbouring segments one, or all of them; returns whether there was need.

    wait_seconds: how long to wait for another merge, or a writer that cleans up. Writers may go on
    meanwhile: what they delete is found out at the end. Raises IndexLockedError where another merge
    is at work or a writer does not end, and IndexWriteError.
    """
    merging = Lock(os.path.join(folder, MERGE_LOCK_NAME))
    merging.acquire(wait_seconds)
    try:
        base = open_snapshot(folder, before)
        chosen = _chosen(base, everything)
        if chosen is None:
            return False
        assert base.manifest is not None
        sources = drafts_of(base)[slice(*chosen)]
        entry = merge_segments(folder, base.segments[slice(*chosen)], base.manifest.compact)
        lock = Lock(os.path.join(folder, LOCK_NAME))
        try:
            lock.acquire(WAIT_SECONDS)
        except BaseException:
            remove_files(folder, [entry.postings.name, entry.documents.name])
            raise
        try:
            newest = open_snapshot(folder, base)
            assert newest.manifest is not None
            drafts = _replaced(drafts_of(newest), sources, new_draft(folder, entry))
            publish_drafts(folder, newest.manifest, drafts)
        finally:
            collect_alone(folder)
            lock.release()
        return True
    finally:
        merging.release()


def _chosen(snapshot: Snapshot, everything: bool) -> tuple[int, int] | None:
    """Return which segments to merge, start to end, or None where all is well."""
    sizes = [(segment.num_docs, segment.num_live) for segment in snapshot.segments]
    if not everything:
        return choose_merge(sizes)
    is_one = len(sizes) <= 1 and all(num_docs == live for num_docs, live in sizes)
    return None if is_one else (0, len(sizes))


def _replaced(drafts: list[Draft], sources: list[Draft], merged: Draft) -> list[Draft]:
    """Return drafts with one in place of those that it was merged from.

    sources: as they were at the beginning; a writer may have deleted documents of them since, or
    all of one, which is then not there any more.
    """
    present = {draft.entry.postings: draft for draft in drafts}
    merged.deleted = np.concatenate(
        [
            present[s.entry.postings].deleted[~s.deleted]
            if s.entry.postings in present
            else np.ones(s.entry.num_docs - s.entry.num_deleted, dtype=np.bool_)
            for s in sources
        ]
    )
    names = {source.entry.postings for source in sources}
    places = [i for i, draft in enumerate(drafts) if draft.entry.postings in names]
    kept = [draft for draft in drafts if draft.entry.postings not in names]
    start = places[0] if places else len(kept)
    return [*kept[:start], merged, *kept[start:]]


def merge_segments(folder: str, segments: Sequence[Segment], compact: bool) -> SegmentEntry:
    """Write the live documents of some segments as one; raises IndexWriteError."""
    blocks = (b for s in segments for b in live_vectors(s.contents.postings, s.live_mask))
    try:
        postings = build_from_stream(blocks, compact)
    except OSError as error:  # it keeps what does not fit into memory in a temporary file
        raise write_error(folder, error) from error
    return write_segment(folder, postings, (row for s in segments for row in s.live_rows()))


def live_vectors(postings: Postings, mask: BoolArray) -> Iterator[SparseVectors]:
    """Yield the vectors of some documents, a block of postings at a time; mask: bool (N,)."""
    lists = postings.lists
    width = lists.num_blocks
    for block in range(width):
        starts, ends = lists.offsets[block:-1:width], lists.offsets[block + 1 :: width]
        lengths = ends - starts
        first_of_term = np.cumsum(lengths) - lengths
        slots = np.repeat(starts - first_of_term, lengths) + np.arange(lengths.sum())
        local_ids = lists.local_ids[slots]
        own_mask = mask[block * lists.block_size : (block + 1) * lists.block_size]
        kept = own_mask[local_ids]
        # Terms ascend along the slots, and a stable sort by document leaves them so in each row.
        by_doc = np.flatnonzero(kept)[np.argsort(local_ids[kept], kind="stable")]
        counts = np.bincount(local_ids[kept], minlength=own_mask.size)[own_mask]
        yield SparseVectors(
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            term_ids=np.repeat(np.arange(postings.num_terms, dtype=np.int32), lengths)[by_doc],
            weights=postings.impacts_of(slots)[by_doc],
            num_terms=postings.num_terms,
        )
    if not width:
        empty = np.zeros(1, dtype=np.int64)
        none = np.zeros(0, dtype=np.int32)
        yield SparseVectors(empty, none, np.zeros(0, dtype=np.float32), postings.num_terms)
