"""An inverted index over sparse vectors, exact search in it, and a folder that keeps it safe."""

from minisplade.index.documents import Document
from minisplade.index.encoders import Encoder
from minisplade.index.hits import Hit, Hits
from minisplade.index.index import Index, Stats
from minisplade.index.querying import Selection

__all__ = ["Document", "Encoder", "Hit", "Hits", "Index", "Selection", "Stats"]
