"""The sentence-transformers layout of a model folder: how it wants queries and documents encoded.

modules.json lists the steps of a pipeline: for SPLADE a Transformer and a SpladePooling, or a
Router with steps of their own for queries and documents. A plain Hugging Face checkpoint has none
of these files and gets the defaults. saving.py writes the layout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from minisplade.checkpoint import read_any_json, read_json
from minisplade.errors import CheckpointError
from minisplade.pooling import Activation, Strategy
from minisplade.vocabularies import tokenizer_file

Task = Literal["query", "document"]

TRANSFORMER_TYPES = ("Transformer", "MLMTransformer")
STATIC_TYPES = ("SparseStaticEmbedding", "IDF")
ROUTER_TYPES = ("Router", "Asym")
# The library named these files after the architecture once; it still reads all of them.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TOKEN_WEIGHT_FILES = ("sparse_linear.safetensors", "sparse_linear.pt")
STATIC_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
STATIC_TABLES = ("idf.json", "query_token_weights.txt")


@dataclass(frozen=True, slots=True)
class StaticWay:
    """A vector has a fixed weight for each token of the text, however often it occurs."""

    folder: Path  # with the tokenizer
    weights: Path  # safetensors, .bin, .json or .txt
    max_seq_length: int | None = None


@dataclass(frozen=True, slots=True)
class SpladeWay:
    """A masked language model's logits are pooled into a vector."""

    folder: Path
    strategy: Strategy = "max"
    activation: Activation = "relu"
    max_seq_length: int | None = None
    lower_case: bool = False
    restriction: StaticWay | None = None  # keep the text's own tokens only, times these weights


@dataclass(frozen=True, slots=True)
class TokenWay:
    """Each token gets a weight from its hidden state: bge-m3."""

    folder: Path
    weights: Path
    max_seq_length: int | None = None


Way: TypeAlias = SpladeWay | StaticWay | TokenWay


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model wants to be used, beyond its weights."""

    document: Way
    query: Way  # the same object, where queries are not encoded in a way of their own
    default_task: Task = "document"
    max_active_dims: int | None = None
    similarity_fn_name: str = "dot"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


def read_settings(folder: Path) -> Settings:
    """Read what a folder says of its ways, prompts and lengths; raises CheckpointError."""
    general = read_optional(folder / "config_sentence_transformers.json")
    prompts = _typed(general, "prompts", dict) or {}
    query, document, default_task = _ways(folder)
    return Settings(
        query=query,
        document=document,
        default_task=default_task,
        max_active_dims=_number(general, "max_active_dims"),
        similarity_fn_name=_typed(general, "similarity_fn_name", str) or "dot",
        prompts={name: _typed(prompts, name, str) or "" for name in prompts},
        default_prompt_name=_typed(general, "default_prompt_name", str),
    )


def _ways(folder: Path) -> tuple[Way, Way, Task]:
    """Return how queries and documents are encoded, and which of the two is the default."""
    if not (folder / "modules.json").is_file():
        document = _plain_way(folder)
        table = next((folder / name for name in STATIC_TABLES if (folder / name).is_file()), None)
        query = StaticWay(folder, table, tokenizer_length(folder)) if table else document
        return query, document, "document"
    steps = _read_modules(folder)
    kinds = [kind for kind, _ in steps]
    if len(steps) == 1 and kinds[0] in ROUTER_TYPES:
        return _read_router(folder, steps[0][1])
    token_weights = _token_weights(folder)
    if token_weights and kinds[0] in TRANSFORMER_TYPES and "SpladePooling" not in kinds:
        # The other steps make a dense vector, which is not what this is for.
        way: Way = TokenWay(folder, token_weights, read_length(folder))
    else:
        way = _way(folder, steps, folder / "modules.json")
    return way, way, "document"


def _plain_way(folder: Path) -> Way:
    token_weights = _token_weights(folder)
    if token_weights:
        return TokenWay(folder, token_weights, read_length(folder))
    return SpladeWay(folder, max_seq_length=read_length(folder), lower_case=_lower_case(folder))


def _token_weights(folder: Path) -> Path | None:
    return next((folder / n for n in TOKEN_WEIGHT_FILES if (folder / n).is_file()), None)


def _read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return the class and the folder of each step."""
    path = folder / "modules.json"
    modules = read_any_json(path)
    try:
        found = [(_class_name(str(m["type"])), str(m["path"])) for m in modules]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a list of modules: {error!r}") from error
    return [(kind, _subfolder(folder, place, path)) for kind, place in found]


def _class_name(name: str) -> str:
    """Return a class without its package, which has changed over the years."""
    return name.rpartition(".")[2]


def _subfolder(folder: Path, name: str, source: Path) -> Path:
    """Return a folder inside another one, or the other one for ""; raises CheckpointError."""
    if name and (Path(name).name != name or name == ".."):
        raise CheckpointError(f"{source} keeps a part in {name!r}; expected a subfolder")
    return folder / name


def _read_router(folder: Path, place: Path) -> tuple[Way, Way, Task]:
    """Read the steps for queries and for documents from router_config.json."""
    path = place / "router_config.json"
    if not path.is_file():
        path = place / "config.json"
    config = read_json(path)
    types, structure, parameters = (
        _typed(config, key, dict) or {} for key in ("types", "structure", "parameters")
    )
    if parameters.get("route_mappings"):
        raise CheckpointError(f"{path} has route_mappings, which are not supported")
    ways: dict[str, Way] = {}
    for route, names in structure.items():
        if not isinstance(names, list) or not all(isinstance(n, str) and n in types for n in names):
            raise CheckpointError(f"{path} has a route {route!r} of steps that types do not list")
        kinds = [_class_name(str(types[name])) for name in names]
        homes = [_step_folder(folder, place, *step, path) for step in zip(kinds, names)]
        ways[route] = _way(folder, list(zip(kinds, homes)), path)
    if not {"query", "document"} <= set(ways):
        raise CheckpointError(
            f"{path} has the routes {', '.join(ways) or 'nothing'}; expected query and document"
        )
    default = parameters.get("default_route") or next(iter(ways))
    if default not in ("query", "document"):
        raise CheckpointError(
            f"{path} has the default route {default!r}; expected query or document"
        )
    return ways["query"], ways["document"], cast(Task, default)


def _step_folder(root: Path, place: Path, kind: str, name: str, source: Path) -> Path:
    """Return the folder of a router's step; a transformer may be kept at the root instead."""
    folder = _subfolder(place, name, source)
    moved = kind in TRANSFORMER_TYPES and not (folder / "config.json").is_file()
    return root if moved else folder


def _way(root: Path, steps: Sequence[tuple[str, Path]], source: Path) -> Way:
    """Recognise a row of steps; raises CheckpointError."""
    kinds = tuple(kind for kind, _ in steps)
    if len(kinds) == 1 and kinds[0] in STATIC_TYPES:
        return _static_way(root, steps[0][1])
    if (
        len(kinds) in (2, 3)
        and kinds[0] in TRANSFORMER_TYPES
        and kinds[1] == "SpladePooling"
        and (len(kinds) == 2 or kinds[2] in STATIC_TYPES)
    ):
        folder = steps[0][1]
        pooling = read_json(steps[1][1] / "config.json")
        return SpladeWay(
            folder=folder,
            strategy=_choice(Strategy, pooling, "pooling_strategy", "max"),
            activation=_choice(Activation, pooling, "activation_function", "relu"),
            max_seq_length=read_length(folder),
            lower_case=_lower_case(folder),
            restriction=_static_way(root, steps[2][1]) if len(kinds) == 3 else None,
        )
    raise CheckpointError(
        f"{source} lists {', '.join(kinds) or 'nothing'}; supported are a Transformer followed by "
        "SpladePooling, a SparseStaticEmbedding, and a Router between such"
    )


def _static_way(root: Path, folder: Path) -> StaticWay:
    """Find the weights of a SparseStaticEmbedding, in its own folder or at the root."""
    table = _typed(read_optional(folder / "config.json"), "path", str)
    own = [folder / name for name in STATIC_WEIGHT_FILES]
    named = [place / Path(table).name for place in (folder, root)] if table else []
    usual = [place / name for place in (folder, root) for name in STATIC_TABLES]
    weights = next((path for path in [*own, *named, *usual] if path.is_file()), None)
    if weights is None:
        raise CheckpointError(
            f"{folder} has no weights for tokens: none of "
            f"{', '.join((*STATIC_WEIGHT_FILES, *STATIC_TABLES))}"
        )
    home = folder if tokenizer_file(folder) else root
    return StaticWay(home, weights, tokenizer_length(home))


def _transformer_config(folder: Path) -> dict[str, Any]:
    """Read what sentence-transformers keeps about a transformer, under any of the names."""
    path = next((folder / n for n in TRANSFORMER_CONFIGS if (folder / n).is_file()), None)
    return read_json(path) if path else {}


def read_length(folder: Path) -> int | None:
    """Return after how many tokens texts are cut, if that is given; raises CheckpointError."""
    length = _number(_transformer_config(folder), "max_seq_length")
    return _bounded(length) if length else tokenizer_length(folder)


def tokenizer_length(folder: Path) -> int | None:
    """Return the same as the tokenizer has it; raises CheckpointError."""
    return _bounded(_number(read_optional(folder / "tokenizer_config.json"), "model_max_length"))


def _bounded(length: int | None) -> int | None:
    """Return a length, or None for the 1e30 of a tokenizer without a limit of its own."""
    return length if length and length < 1 << 30 else None


def _lower_case(folder: Path) -> bool:
    return bool(_typed(_transformer_config(folder), "do_lower_case", bool))


def read_optional(path: Path) -> dict[str, Any]:
    """Read a JSON object, or {} where there is no such file; raises CheckpointError."""
    return read_json(path) if path.is_file() else {}


def _typed(config: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a value of the expected type, or None where there is none; raises CheckpointError."""
    value = config.get(key)
    if value is not None and not isinstance(value, kind):
        raise CheckpointError(f"{key} is {value!r}; expected {kind.__name__}")
    return value


def _number(config: Mapping[str, Any], key: str) -> int | None:
    """Return a positive whole number, which may be written as 512.0; raises CheckpointError."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise CheckpointError(f"{key} is {value!r}; expected a whole number above 0")
    return int(min(value, 1 << 62))  # 1e400 reads as infinity


def _choice(allowed: Any, config: Mapping[str, Any], key: str, default: str) -> Any:
    """Return one of the values that a Literal type allows; raises CheckpointError."""
    value = config.get(key, default)
    if value not in get_args(allowed):
        raise CheckpointError(f"{key} is {value!r}; supported: {', '.join(get_args(allowed))}")
    return cast(Any, value)
