"""How postings lie in an index file, now and in earlier versions of the format."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import PostingLists
from minisplade.errors import InputError
from minisplade.index.postings import (
    Postings,
    block_size_for,
    finish_postings,
    make_postings,
    no_rows,
)

FORMAT = "minisplade-index"
FORMAT_VERSION = 2

Arrays = dict[str, NDArray[Any]]

DTYPES = {
    "offsets": np.int64,
    "local_ids": np.uint16,
    "impacts": np.float32,
    "codes": np.uint16,
    "rests": np.uint16,
    "peaks": np.float32,
}


def stored(postings: Postings) -> tuple[Arrays, dict[str, str]]:
    """Return what a file needs to hold: arrays by name, and metadata."""
    fields = postings.lists._asdict()
    arrays = {name: fields[name] for name in DTYPES}
    names = ("num_docs", "block_size", "smallest", "base", "shift")
    return arrays, {name: repr(fields[name]) for name in names}


def postings_from(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Postings:
    """Undo stored; of mapped arrays only the offsets and ids are read, to check them.

    Raises InputError, KeyError or ValueError for contents that do not fit together.
    """
    num_docs = int(metadata["num_docs"])
    if metadata["version"] == "1":
        return _from_version_1(arrays, num_docs)
    for name, dtype in DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise InputError(f"{name} is {arrays[name].dtype} of shape {arrays[name].shape}")
    block_size, smallest = int(metadata["block_size"]), float(metadata["smallest"])
    if not (0 < smallest < np.inf or arrays["local_ids"].size == 0):
        raise InputError(f"the smallest impact is {smallest}")
    postings = make_postings(
        PostingLists(
            **{name: arrays[name] for name in DTYPES},
            **no_rows(arrays["peaks"].size),
            smallest=smallest,
            base=int(metadata["base"]),
            shift=int(metadata["shift"]),
            num_docs=num_docs,
            num_blocks=-(-num_docs // max(1, block_size)),
            block_size=block_size,
        )
    )
    postings.check()
    return postings.with_rows()


def _from_version_1(arrays: Mapping[str, NDArray[Any]], num_docs: int) -> Postings:
    """Cut the lists of version 1, whole document ids by term, into cells."""
    offsets, doc_ids, impacts = arrays["offsets"], arrays["doc_ids"], arrays["impacts"]
    if offsets.size < 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
        raise InputError("offsets of postings must start at 0 and not decrease")
    if not offsets[-1] == doc_ids.size == impacts.size:
        raise InputError("offsets, document ids and impacts disagree about their length")
    if doc_ids.size and not 0 <= doc_ids.min() <= doc_ids.max() < num_docs:
        raise InputError(f"postings name documents outside 0 to {num_docs - 1}")
    block_size = block_size_for(num_docs)
    num_terms, num_blocks = offsets.size - 1, -(-num_docs // block_size)
    term_ids = np.repeat(np.arange(num_terms), np.diff(offsets))
    if np.any(np.diff(term_ids * num_docs + doc_ids) <= 0):
        raise InputError("the documents of a term are out of order")
    cells = term_ids * num_blocks + doc_ids // block_size
    cell_offsets = np.zeros(num_terms * num_blocks + 1, dtype=np.int64)
    np.cumsum(np.bincount(cells, minlength=cell_offsets.size - 1), out=cell_offsets[1:])
    local_ids = (doc_ids % block_size).astype(np.uint16)
    postings = finish_postings(
        cell_offsets, local_ids, impacts.astype(np.float32), num_docs, num_terms, block_size
    )
    postings.check()
    return postings
