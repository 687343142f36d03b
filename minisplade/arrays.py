"""Array types, and the letters that docstrings use for array shapes.

B  texts in a batch        T  tokens per text, padding included
D  hidden size             H  attention heads        K  size of one head, D / H
F  feed-forward size       V  vocabulary size: one dimension of a sparse vector per term
N  documents               P  postings or non-zero weights        Q  queries
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IdArray: TypeAlias = NDArray[np.int32]
OffsetArray: TypeAlias = NDArray[np.int64]
ByteArray: TypeAlias = NDArray[np.uint8]
CodeArray: TypeAlias = NDArray[np.int8]
HalfArray: TypeAlias = NDArray[np.int16]

Params: TypeAlias = dict[str, FloatArray]
"""The weights of a model by name, such as "layers.0.attention.query.weight"."""
