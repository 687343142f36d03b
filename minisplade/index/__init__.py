"""An inverted index over sparse vectors, exact search in it, and a folder that keeps it safe."""

from minisplade.index.documents import Document
from minisplade.index.encoders import Encoder
from minisplade.index.hits import Hit, Hits
from minisplade.index.index import Index
from minisplade.index.querying import Selection
from minisplade.index.reader import Stats

__all__ = ["Document", "Encoder", "Hit", "Hits", "Index", "Selection", "Stats"]
