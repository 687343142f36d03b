"""Filters: the documents that a search may return, as bitmaps or as conditions on metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minisplade.arrays import BoolArray, IdArray
from minisplade.errors import InputError
from minisplade.index.documents import Documents, is_text

Condition: TypeAlias = Mapping[str, Any]
"""What metadata must be, such as {"lang": ["en", "fr"], "year": {">=": 1990}}; see matching."""

OPERATORS = {"=": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


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


def matching(condition: Condition, documents: Documents, num_docs: int) -> BoolArray:
    """Return which documents have metadata that meets a condition, bool (N,).

    A condition names fields; all of them must match. A field matches a value that it equals, a
    list that has one of its values, or comparisons, {">=": 1990, "<": 2000}, with "=", "<", "<=",
    ">", ">=" and "in". Numbers compare with numbers and strings with strings. A field that holds a
    list matches where one value of it does. {"and": [...]}, {"or": [...]} and {"not": ...} combine
    conditions. Raises InputError.
    """
    if not isinstance(condition, Mapping):
        raise InputError(f"condition is {condition!r:.80}; expected a dict of fields")
    found = np.ones(num_docs, dtype=np.bool_)
    for name, wanted in condition.items():
        if name in ("and", "or"):
            if not isinstance(wanted, list | tuple):
                raise InputError(f"{name!r} has {wanted!r:.80}; expected a list of conditions")
            parts = [matching(part, documents, num_docs) for part in wanted]
            every, some = np.logical_and.reduce, np.logical_or.reduce
            if name == "and":
                found &= every(parts, axis=0) if parts else True
            else:
                found &= some(parts, axis=0) if parts else False
        elif name == "not":
            found &= ~matching(wanted, documents, num_docs)
        else:
            found &= _with_field(name, wanted, documents, num_docs)
    return found


def _with_field(name: str, wanted: Any, documents: Documents, num_docs: int) -> BoolArray:
    if not is_text(name):
        raise InputError(f"field {name!r:.80} is no string")
    comparisons = wanted if isinstance(wanted, Mapping) else {"in": wanted}
    bounds: list[tuple[str, Any]] = []
    for operator, value in comparisons.items():
        if operator == "in":
            continue
        if operator not in OPERATORS:
            expected = ", ".join([*OPERATORS, "in"])
            raise InputError(f"field {name!r} is compared by {operator!r}; expected {expected}")
        bounds.append((OPERATORS[operator], _value(name, value)))
        # SQLite sorts every number before every string; the two are not to be compared.
        bounds.append((">=" if isinstance(value, str) else "<", ""))
    found = np.zeros(num_docs, dtype=np.bool_)
    if "in" not in comparisons:
        found[documents.with_field(name, bounds)] = True
        return found
    choices = comparisons["in"]
    for choice in choices if isinstance(choices, list | tuple | set) else [choices]:
        found[documents.with_field(name, [*bounds, ("=", _value(name, choice))])] = True
    return found


def _value(name: str, value: Any) -> Any:
    """Return a value that a field can have; raises InputError."""
    in_range = not isinstance(value, int) or -(2**63) <= value < 2**63
    finite = not isinstance(value, float) or np.isfinite(value)
    if not (isinstance(value, int | float) or is_text(value)) or not (in_range and finite):
        raise InputError(f"field {name!r} is compared with {value!r:.80}; expected str or number")
    return value
