"""Building postings from blocks of vectors, in little more memory than the postings take."""

from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile

import numpy as np

from minisplade.arrays import IdArray
from minisplade.errors import InputError
from minisplade.index.postings import (
    BLOCK_SIZE,
    Postings,
    block_size_for,
    build_postings,
    finish_postings,
)
from minisplade.vectors import SparseVectors, concatenate


def build_from_stream(
    blocks: Iterable[SparseVectors], compact: bool = False, block_size: int = BLOCK_SIZE
) -> Postings:
    """Build what build_postings would of all blocks in a row, holding few of them at a time.

    The postings of each block_size documents wait in a temporary file until all are counted.
    Raises InputError where there are no blocks, or blocks of different vocabularies.
    """
    pieces = _pieces(blocks, block_size)
    piece, following = next(pieces, None), next(pieces, None)
    if piece is None:
        raise InputError("there are no vectors to index; expected one block or more")
    if following is None:
        return build_postings(piece, compact, min(block_size, block_size_for(len(piece))))
    counts: list[IdArray] = []
    num_docs, num_terms = 0, piece.num_terms
    with TemporaryFile() as file:
        while piece is not None:
            if piece.num_terms != num_terms:
                raise InputError(
                    f"vectors over {num_terms} and over {piece.num_terms} terms; "
                    "expected one common size"
                )
            lists = build_postings(piece, block_size=block_size).lists
            counts.append(np.diff(lists.offsets).astype(np.int32))
            file.write(lists.local_ids.tobytes())
            file.write(lists.impacts.tobytes())
            num_docs += len(piece)
            piece, following = following, next(pieces, None)
        file.seek(0)
        num_blocks = len(counts)
        offsets = np.zeros(num_terms * num_blocks + 1, dtype=np.int64)
        np.cumsum(np.stack(counts, axis=1).reshape(-1), dtype=np.int64, out=offsets[1:])
        local_ids = np.empty(offsets[-1], dtype=np.uint16)
        impacts = np.empty(offsets[-1], dtype=np.float32)
        for block, own in enumerate(counts):
            size = int(own.sum())
            # Postings of a piece stay together by term; each term's move to its cell.
            shifts = offsets[block:-1:num_blocks] - (np.cumsum(own, dtype=np.int64) - own)
            slots = np.repeat(shifts, own) + np.arange(size)
            local_ids[slots] = np.frombuffer(file.read(2 * size), dtype=np.uint16)
            impacts[slots] = np.frombuffer(file.read(4 * size), dtype=np.float32)
    postings = finish_postings(offsets, local_ids, impacts, num_docs, num_terms, block_size)
    return postings.to_compact() if compact else postings


def _pieces(blocks: Iterable[SparseVectors], size: int) -> Iterator[SparseVectors]:
    """Cut a stream into pieces of so many rows, the last one of fewer."""
    waiting: list[SparseVectors] = []
    rows, started = 0, False
    for block in blocks:
        waiting.append(block)
        rows += len(block)
        while rows >= size:
            joined = concatenate(waiting)
            yield joined[:size]
            waiting, rows, started = [joined[size:]], rows - size, True
    # A stream of empty blocks still tells how many terms there are.
    if rows or (waiting and not started):
        yield concatenate(waiting)
