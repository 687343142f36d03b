"""Filters: the documents that a search may return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minisplade.arrays import BoolArray, IdArray
from minisplade.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A set of documents, as a bitmap and as a list; make it once and search with it often."""

    allowed: BoolArray  # bool (N,)
    doc_ids: IdArray  # int32, the allowed ones in order

    @classmethod
    def from_mask(cls, mask: Any, num_docs: int) -> Filter:
        """Take one truth value for each document; raises InputError for another number of them."""
        allowed = np.array(mask)
        if allowed.dtype != np.bool_ or allowed.shape != (num_docs,):
            raise InputError(
                f"filter is {allowed.dtype} of shape {allowed.shape}; expected bool of shape "
                f"({num_docs},), one for each document"
            )
        doc_ids = np.flatnonzero(allowed).astype(np.int32)
        allowed.flags.writeable = False
        doc_ids.flags.writeable = False
        return cls(allowed, doc_ids)


EVERYTHING = Filter(np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int32))
"""What kernels take for no filter."""
EVERYTHING.allowed.flags.writeable = False
EVERYTHING.doc_ids.flags.writeable = False
