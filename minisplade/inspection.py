"""What a model folder holds, what of it is used and how, and what is ignored and why."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minisplade.checkpoint import WEIGHT_FILES, Checkpoint, open_checkpoint, read_json
from minisplade.errors import MiniSpladeError
from minisplade.layout import (
    Settings,
    SpladeWay,
    StaticWay,
    TokenWay,
    Way,
    read_length,
    read_optional,
    read_settings,
)
from minisplade.models import bert, heads
from minisplade.models.names import (
    Purpose,
    classifies,
    find_architecture,
    num_classes,
    param_shapes,
    read_config,
    read_params,
    unused_tensors,
)
from minisplade.routes import read_token_weights, usable_path
from minisplade.runtime import KERNEL_PATHS, choose_kernel_path
from minisplade.vocabularies import load_tokenizer, tokenizer_file

NOT_LIMITED = 1 << 31

IGNORED_FILES = {
    "colbert_linear.pt": "vectors of many parts are not made",
    "onnx": "another form of the same weights",
    "openvino": "another form of the same weights",
    "tf_model.h5": "another form of the same weights",
    "flax_model.msgpack": "another form of the same weights",
    "sentencepiece.bpe.model": "tokenizer.json says the same",
    "spiece.model": "tokenizer.json says the same",
}


def inspect_model(folder: Path) -> dict[str, Any]:
    """Describe a model folder in named rows, each a string or a list of strings.

    "use" says which class loads it, or that none does and precisely why not. Raises no error for a
    folder that cannot be used.
    """
    report: dict[str, Any] = {"folder": str(folder), "use": ""}
    try:
        raw = read_optional(folder / "config.json")
        if classifies(raw):
            _describe_pairs(folder, raw, report)
        else:
            _describe_vectors(folder, report)
    except MiniSpladeError as error:
        report["use"] = f"none, because {error}"
    report["ignored"] = [*report.pop("ignored", []), *_ignored_files(folder)] or ["nothing"]
    return report


def _describe_pairs(folder: Path, raw: dict[str, Any], report: dict[str, Any]) -> None:
    config = _describe_transformer(folder, report, "class")
    longest = min(read_length(folder) or config.max_positions, config.max_positions)
    report["pairs"] = f"{num_classes(raw)} score(s) for each, cut at {longest} tokens"
    _describe_tokenizer(folder, config.vocab_size, report)
    report["use"] = "CrossEncoder"


def _describe_vectors(folder: Path, report: dict[str, Any]) -> None:
    settings = read_settings(folder)
    ways = {"documents": settings.document}
    if settings.query is not settings.document:
        ways["queries"] = settings.query
    for name, way in ways.items():
        report[name] = _way_line(way)
        prefix = "" if len(ways) == 1 else f"{name}: "
        part: dict[str, Any] = {}
        try:
            _describe_way(way, part)
        finally:
            report |= {f"{prefix}{row}": text for row, text in part.items() if row != "ignored"}
            report.setdefault("ignored", []).extend(part.get("ignored", []))
    report["settings"] = _settings_line(settings)
    report["use"] = "SparseEncoder"


def _way_line(way: Way) -> str:
    """Say in a line how texts become vectors."""
    if isinstance(way, StaticWay):
        return f"a fixed weight for each token, from {way.weights}"
    if isinstance(way, TokenWay):
        return f"a weight for each token from its hidden state, by {way.weights.name}"
    saturation = "log(1 + relu)" if way.activation == "relu" else "log(1 + log(1 + relu))"
    line = f"{way.strategy} over tokens of {saturation} of the logits"
    return f"{line}, times weights of the text's own tokens" if way.restriction else line


def _describe_way(way: Way, report: dict[str, Any]) -> None:
    if isinstance(way, StaticWay):
        tokenizer = load_tokenizer(way.folder, NOT_LIMITED)
        weights = read_token_weights(way, tokenizer, None)
        report["weights"] = f"{weights.size} tokens, {(weights > 0).sum()} of them above 0"
        _describe_tokenizer(way.folder, weights.size, report)
        return
    purpose: Purpose = "mlm" if isinstance(way, SpladeWay) else "encoder"
    config = _describe_transformer(way.folder, report, purpose)
    longest = min(way.max_seq_length or config.max_positions, config.max_positions)
    _describe_tokenizer(way.folder, config.vocab_size, report, f", texts cut at {longest} tokens")


def _describe_transformer(
    folder: Path, report: dict[str, Any], purpose: Purpose
) -> bert.BertConfig:
    """Say what the encoder is, where its weights come from and how it is run."""
    raw = read_json(folder / "config.json")
    names = raw.get("architectures") or ["unnamed class"]
    report["architecture"] = f"{raw.get('model_type')}, {', '.join(map(str, names))}"
    if raw.get("auto_map"):
        report["ignored"] = ["auto_map in config.json: code of a model's own is never run"]
    config = read_config(raw, purpose)
    report["sizes"] = (
        f"{config.num_layers} layers of {config.hidden_size}, {config.num_heads} heads, "
        f"feed-forward {config.intermediate_size}, {config.vocab_size} terms, "
        f"{config.max_positions} positions"
    )
    checkpoint = open_checkpoint(folder)
    shapes = _shapes(config, raw, purpose)
    params = read_params(checkpoint, raw, shapes, purpose)
    kinds = ", ".join(sorted(set(checkpoint.dtypes.values())))
    source = next(name for name in WEIGHT_FILES if (folder / name).is_file())
    distinct = {id(weight): weight.size for weight in params.values()}
    tied = params.get("head.decoder.weight") is params["embeddings.word.weight"]
    report["weights"] = f"{sum(distinct.values()):,} in {source}, {kinds}" + (
        ", decoder tied to the embeddings" if tied else ""
    )
    best = choose_kernel_path()
    path = usable_path(config, best)
    why = KERNEL_PATHS[path] if purpose == "mlm" or path == "reference" else "compiled"
    if path != best:
        why += "; the compiled paths do not know this architecture yet"
    report["kernel path"] = f"{path}: {why}"
    report.setdefault("ignored", []).extend(_unused(checkpoint, raw, shapes, purpose))
    return config


def _shapes(
    config: bert.BertConfig, raw: dict[str, Any], purpose: Purpose
) -> dict[str, tuple[int, ...]]:
    if purpose == "mlm":
        return param_shapes(config)
    if purpose == "class":
        return bert.param_shapes(config) | heads.class_shapes(config, num_classes(raw))
    return bert.param_shapes(config)


def _unused(
    checkpoint: Checkpoint,
    raw: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    purpose: Purpose,
) -> Iterator[str]:
    """Group the tensors that nothing reads by what they are for."""
    architecture = find_architecture(raw, purpose)
    reasons = Counter(map(_reason, unused_tensors(architecture, checkpoint, shapes)))
    for reason, count in sorted(reasons.items()):
        yield f"{count} tensor{'s' if count > 1 else ''}: {reason}"


def _reason(name: str) -> str:
    """Say why a tensor is not needed."""
    if name.endswith(("position_ids", "token_type_ids", "inv_freq")):
        return f"{name.rpartition('.')[2]} can be counted"
    if "pooler" in name:
        return "the pooler is for other uses of the model"
    if name.startswith(("cls.seq_relationship", "sop_classifier")):
        return "which sentence comes first is not asked"
    if name.startswith(("cls.predictions", "lm_head", "predictions", "vocab_", "decoder", "head.")):
        return "this part of the head is not used, or stored twice"
    return f"{name} is unknown"


def _describe_tokenizer(
    folder: Path, vocab_size: int, report: dict[str, Any], length: str = ""
) -> None:
    tokenizer = load_tokenizer(folder, vocab_size)
    source = tokenizer_file(folder)
    assert source is not None
    kind = type(tokenizer.model).__name__
    report["tokenizer"] = f"{kind}, {tokenizer.get_vocab_size()} tokens, {source.name}{length}"


def _settings_line(settings: Settings) -> str:
    parts = [f"similarity {settings.similarity_fn_name}"]
    if settings.max_active_dims:
        parts.append(f"the {settings.max_active_dims} heaviest terms")
    shown = {name: text for name, text in settings.prompts.items() if text}
    parts.append(f"prompts {shown}" if shown else "no prompts")
    if settings.query is not settings.document:
        parts.append(f"encode() takes texts for {settings.default_task}s")
    return ", ".join(parts)


def _ignored_files(folder: Path) -> Iterator[str]:
    """Name files that look as if they mattered, and say why they do not."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    weights = [name for name in WEIGHT_FILES if name in present]
    for name in weights[1:]:
        yield f"{name}: {weights[0]} has the same weights"
    for name, reason in IGNORED_FILES.items():
        if name in present:
            yield f"{name}: {reason}"
    for path in sorted(folder.glob("*.py")):
        yield f"{path.name}: code of a model's own is never run"
