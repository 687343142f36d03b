"""An inverted index over sparse vectors, and exact search in it."""

from minisplade.index.filters import Filter
from minisplade.index.index import Encoder, Hit, Hits, Index

__all__ = ["Encoder", "Filter", "Hit", "Hits", "Index"]
