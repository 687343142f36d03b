"""A model's files: config.json and weights, of safetensors or torch, checked before use."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray
from minisplade.errors import CheckpointError
from minisplade.files import map_safetensors
from minisplade.pickles import map_pickle

WEIGHTS = "model.safetensors"
PICKLED_WEIGHTS = "pytorch_model.bin"
WEIGHT_FILES = tuple(
    name for file in (WEIGHTS, PICKLED_WEIGHTS) for name in (file, f"{file}.index.json")
)
"""What a folder's weights may be in, the best first; an index lists the shards of a large model."""
MAX_JSON_BYTES = 1 << 25


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of a model folder, memory-mapped, under the names that the files give them."""

    folder: Path
    tensors: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, str]  # safetensors names: F32, F16, BF16, ...

    def __contains__(self, name: str) -> bool:
        """Tell whether the files hold a tensor of that name."""
        return name in self.tensors

    def is_same(self, a: str, b: str) -> bool:
        """Tell whether two names stand for the same numbers of a file, as torch.save writes it."""
        if a not in self or b not in self:
            return False
        first, second = self.tensors[a], self.tensors[b]
        return first.ctypes.data == second.ctypes.data and first.strides == second.strides

    def weight(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return one tensor as float32 of the expected shape.

        Raises CheckpointError where it is absent, of another shape or kind, or not finite.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.folder} has no tensor {name}; its config asks for it")
        tensor = self.tensors[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{name} in {self.folder} has shape {tensor.shape}; config.json asks for {shape}"
            )
        weight = to_float32(tensor, self.dtypes[name], name)
        if not np.isfinite(weight).all():
            raise CheckpointError(
                f"{name} in {self.folder} holds NaN or infinite weights; the file is damaged or "
                "its training diverged"
            )
        return weight


def open_checkpoint(folder: Path) -> Checkpoint:
    """Map the first of WEIGHT_FILES that a folder has; raises CheckpointError."""
    tensors: dict[str, NDArray[Any]] = {}
    dtypes: dict[str, str] = {}
    for path in _weight_files(folder):
        shard, shard_dtypes = map_tensors(path)
        tensors |= shard
        dtypes |= shard_dtypes
    # TensorFlow's names for LayerNorm weights live on in many files.
    # Where a file has both, the current name wins, because it comes last.
    by_age = sorted(tensors, key=lambda name: _current_name(name) == name)
    current = {_current_name(name): name for name in by_age}
    return Checkpoint(
        folder=folder,
        tensors={name: tensors[old] for name, old in current.items()},
        dtypes={name: dtypes[old] for name, old in current.items()},
    )


def open_file(path: Path) -> Checkpoint:
    """Map one file of weights on its own; raises CheckpointError."""
    return Checkpoint(path, *map_tensors(path))


def map_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map one file of weights; returns arrays and safetensors dtype names, by tensor.

    Raises CheckpointError.
    """
    if path.suffix == ".safetensors":
        return map_safetensors(path, CheckpointError)[:2]
    return map_pickle(path, CheckpointError)


def to_float32(tensor: NDArray[Any], dtype: str, name: str = "tensor") -> FloatArray:
    """Turn numbers of any floating-point type to float32; float32 stays a view of the file.

    tensor: as map_tensors returns it, raw bits where NumPy lacks the type. float64 is rounded, what
    is too large for float32 to infinity.
    """
    if dtype == "F32":
        return tensor
    if dtype == "F16":
        return tensor.astype(np.float32)
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F64":
        with np.errstate(over="ignore"):
            return tensor.astype(np.float32)
    if dtype == "F8_E5M2":
        return (tensor.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E4M3":
        return _float8_table()[tensor]
    raise CheckpointError(f"{name} is of type {dtype}; expected a floating-point type")


def _float8_table() -> FloatArray:
    """Return the values of all 256 float8 e4m3 numbers.

    Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1: an exponent with
    bias 7, no infinities, and NaN where all other bits are set.
    """
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    table = np.where(exponent > 0, normal, np.ldexp(mantissa / 8, -6))
    table[127] = table[255] = np.nan
    return np.where(bits < 128, table, -table).astype(np.float32)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError where the file is missing or something else."""
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_any_json(path: Path) -> Any:
    """Read a JSON file of a model; raises CheckpointError where it is missing or malformed."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is larger than any JSON file of a model")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    """List the files that the weights of a model folder are in."""
    found = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} has no weights: none of {', '.join(WEIGHT_FILES)}")
    if not found.endswith(".json"):
        return [folder / found]
    shards = read_json(folder / found).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{folder / found} has no weight_map")
    names = sorted(set(map(str, shards.values())))
    if any(Path(name).name != name or name in ("", "..") for name in names):
        raise CheckpointError(f"{folder / found} names a file outside its folder")
    return [folder / name for name in names]


def _current_name(name: str) -> str:
    """Translate LayerNorm.gamma and LayerNorm.beta into weight and bias."""
    stem, _, last = name.rpartition(".")
    if stem.endswith("LayerNorm") and last in ("gamma", "beta"):
        return f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
    return name
