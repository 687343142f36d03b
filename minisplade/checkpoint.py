"""A model's files: config.json and safetensors weights, checked before use."""

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

WEIGHTS = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of a model folder, memory-mapped, under the names that the files give them."""

    folder: Path
    tensors: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, str]  # safetensors names: F32, F16, BF16, ...

    def __contains__(self, name: str) -> bool:
        """Tell whether the files hold a tensor of that name."""
        return name in self.tensors

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
    """Map model.safetensors, or the shards that its index lists; raises CheckpointError."""
    tensors: dict[str, NDArray[Any]] = {}
    dtypes: dict[str, str] = {}
    for path in _weight_files(folder):
        shard, shard_dtypes, _ = map_safetensors(path, CheckpointError)
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


def to_float32(tensor: NDArray[Any], dtype: str, name: str = "tensor") -> FloatArray:
    """Widen float16 or bfloat16 (as uint16 bits) to float32; float32 stays a view of the file."""
    if dtype == "F32":
        return tensor
    if dtype == "F16":
        return tensor.astype(np.float32)
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    raise CheckpointError(f"{name} is of type {dtype}; expected F32, F16 or BF16")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError where the file is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / SHARD_INDEX).is_file():
        shards = read_json(folder / SHARD_INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{folder / SHARD_INDEX} has no weight_map")
        names = sorted(set(map(str, shards.values())))
        if any(Path(name).name != name or name in ("", "..") for name in names):
            raise CheckpointError(f"{folder / SHARD_INDEX} names a file outside its folder")
        return [folder / name for name in names]
    pickled = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
    hint = (
        f"; {pickled} is a pickle, which can run code, so minisplade does not open it: convert it "
        "with transformers' save_pretrained"
        if pickled
        else ""
    )
    raise CheckpointError(f"{folder} has neither {WEIGHTS} nor {SHARD_INDEX}{hint}")


def _current_name(name: str) -> str:
    """Translate LayerNorm.gamma and LayerNorm.beta into weight and bias."""
    stem, _, last = name.rpartition(".")
    if stem.endswith("LayerNorm") and last in ("gamma", "beta"):
        return f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
    return name
