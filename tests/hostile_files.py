"""Model files that are wrong on purpose, tried one after another; prints what came of each.

A program of its own, so that what memory each takes at most can be told: test_hostile.py runs it.
"""

import json
import random
import resource
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch_files as files
from conftest import GOLDEN
from layouts import ROWS, copy_full, pickle_weights, write_json

from minisplade import SparseEncoder
from minisplade.errors import MiniSpladeError

Change = Callable[[Path], None]

MUTATIONS = 2000
HUGE = 1 << 40


def header(entries: Any, size: int | None = None, data: bytes = b"") -> bytes:
    """Return a safetensors file with any header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "empty": b"",
    "seven bytes": b"1234567",
    "no header": header(b""),
    "a header longer than the file": header(b"{}", size=1000),
    "a header of terabytes": header(b"{}", size=HUGE),
    "a header of 2^64 - 1": header(b"{}", size=(1 << 64) - 1),
    "no JSON": header(b"{tensors}"),
    "a list": header([]),
    "nested": header(b"[" * 50_000),
    "not UTF-8": header(b'{"\xff": 1}'),
    "no entries": header({}),
    "an entry that is a number": header({"a": 5}),
    "an entry without offsets": header({"a": {"dtype": "F32", "shape": [1]}}),
    "an unknown type": header({"a": entry([1], 0, 4, "F99")}, data=b"1234"),
    "beyond the end": header({"a": entry([4], 0, 16)}, data=b"1234"),
    "end before start": header({"a": entry([1], 4, 0)}, data=b"12345678"),
    "negative": header({"a": entry([1], -4, 0)}, data=b"1234"),
    "a shape that does not fit": header({"a": entry([3], 0, 4)}, data=b"1234"),
    "an endless shape": header({"a": entry([HUGE, HUGE, HUGE], 0, 4)}, data=b"1234"),
    "a negative shape": header({"a": entry([-1], 0, 4)}, data=b"1234"),
    "overlaps": header({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, data=b"123456"),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "a pickle": files.zip_file({}),
}
PICKLES = {
    "a call": files.zip_file({}, files.program(files.name("os", "getcwd") + b")R")),
    "a bomb of zeros": files.zip_file({}, b"\0" * (1 << 24), compression=zipfile.ZIP_DEFLATED),
    "a bomb of data": files.zip_file(
        {}, extra={"data/0": b"\0" * (1 << 24)}, compression=zipfile.ZIP_DEFLATED
    ),
    "a long program": files.zip_file({}, b"\x80\x02" + b"}" * (1 << 22)),
    "a long string": files.zip_file({}, files.program(b"}" + files.text("x" * (1 << 22)) + b"Ns")),
    "a string beyond the end": files.zip_file({}, b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f."),
    "a memo of millions": files.zip_file({}, files.program(b"}r\xff\xff\xff\xff")),
    "doubled for ever": files.zip_file({}, files.program(b")" + b"q\0h\0\x86" * 60)),
    "a number of megabytes": files.zip_file(
        {}, b"\x80\x02\x8b" + struct.pack("<i", 1 << 22) + b"\x7f" * (1 << 22) + b"."
    ),
    "no pickle": b"PK\x03\x04",
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "a text": b"this is not a pickle",
    "a legacy file without an end": files.legacy_file(files.random_tensors())[:-3],
    "a legacy file of terabytes": files.legacy_file({}, files.program(b"}"))
    + struct.pack("<q", HUGE),
}
CONFIGS: dict[str, Any] = {
    "empty": b"",
    "a list": [],
    "nested": b'{"a":' * 30_000,
    "not UTF-8": b'{"model_type": "\xff"}',
    "another architecture": {"model_type": "qwen3"},
    "an endless vocabulary": {"vocab_size": (1 << 31) - 1},
    "endless layers": {"num_hidden_layers": (1 << 31) - 1},
    "a thousand layers": {"num_hidden_layers": 1000},
    "an endless hidden size": {"hidden_size": 1 << 30},
    "endless positions": {"max_position_embeddings": 1 << 30},
    "no heads": {"num_attention_heads": 0},
    "a text as number": {"vocab_size": "many"},
    "a number of 5,000 digits": b'{"vocab_size": ' + b"9" * 5000 + b"}",
    "no number": {"layer_norm_eps": float("nan")},
}
TOKENIZERS: dict[str, Any] = {
    "empty": b"",
    "nothing": {},
    "a list": [],
    "nested": b'{"a":' * 30_000,
    "an unknown model": {"model": {"type": "Guess"}},
    "no vocabulary": {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]"}},
    "ids beyond the model": {
        "model": {
            "type": "WordPiece",
            "vocab": {"a": 4_000_000_000},
            "unk_token": "a",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }
    },
    "a merge of unknown tokens": {"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}},
    "a broken pattern": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}}},
    "a template of unknown tokens": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "?", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}
LAYOUTS: dict[str, tuple[str, Any]] = {
    "modules that are no list": ("modules.json", {"a": 1}),
    "modules outside": ("modules.json", [{"type": "x.Router", "path": "../.."}]),
    "modules without types": ("modules.json", [{"path": ""}]),
    "a pooling of lists": ("1_SpladePooling/config.json", {"pooling_strategy": ["max"]}),
    "prompts that are numbers": ("config_sentence_transformers.json", {"prompts": {"query": 1}}),
    "a negative length": ("sentence_bert_config.json", {"max_seq_length": -5}),
    "a length of one": ("sentence_bert_config.json", {"max_seq_length": 0.5}),
}


def put(name: str, content: Any, merge: bool = False) -> Change:
    """Return the change that a file gets other content, on top of its own where that is a dict."""

    def change(folder: Path) -> None:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif merge and isinstance(content, dict):
            write_json(path, json.loads(path.read_text()) | content)
        else:
            write_json(path, content)

    return change


def put_pickle(content: bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return change


def cases() -> Iterator[tuple[str, Change]]:
    """Yield every hand-made case: its name, and what it does to a folder that is right."""
    for name, content in SAFETENSORS.items():
        yield f"safetensors: {name}", put("model.safetensors", content)
    for name, content in PICKLES.items():
        yield f"pickle: {name}", put_pickle(content)
    for name, content in CONFIGS.items():
        yield f"config: {name}", put("config.json", content, merge=True)
    for name, content in TOKENIZERS.items():
        merge = name in ("a broken pattern", "a template of unknown tokens")
        yield f"tokenizer: {name}", put("tokenizer.json", content, merge)
    for name, (file, content) in LAYOUTS.items():
        yield name, put(file, content, merge=file != "modules.json")


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a file a little: bytes flipped, cut out, doubled, or the end missing."""
    place = rng.randrange(len(content))
    if rng.random() < 0.5:  # where most files say what is in them
        place = rng.randrange(min(len(content), 2000))
    size = rng.randrange(1, 64)
    kind = rng.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[place + size :]
    if kind == 2:
        return content[: place + size] + content[place:]
    if kind == 3:
        noise = rng.randbytes(size)
        return content[:place] + noise + content[place + size :]
    flipped = content[place] ^ (1 << rng.randrange(8))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def mutations(sources: dict[str, Path]) -> Iterator[tuple[str, Path, str, bytes]]:
    """Yield a name, a folder that is right, one of its files, and other content for that."""
    rng = random.Random(0)
    places = [
        (source, str(path.relative_to(folder)))
        for source, folder in sources.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    for number in range(MUTATIONS):
        source, name = places[number % len(places)]
        content = (sources[source] / name).read_bytes()
        mutated = mutate(content, rng)
        yield f"mutation {number} of {source}/{name}", sources[source], name, mutated


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def attempt(name: str, folder: Path) -> None:
    """Load a folder, use it once, and print what came of it."""
    before, start = peak_memory(), time.perf_counter()
    try:
        encoder = SparseEncoder(folder, kernel_path="reference")
        with np.errstate(all="ignore"):  # weights may have become enormous
            encoder.encode_query("the cat")
        outcome = "loaded"
    except MiniSpladeError as error:
        outcome = type(error).__name__
    except BaseException as error:
        outcome = f"untyped {error!r:.200}"
    row = {
        "case": name,
        "outcome": outcome,
        "seconds": time.perf_counter() - start,
        "grown_bytes": peak_memory() - before,
    }
    sys.stdout.write(json.dumps(row) + "\n")


def main(work: Path) -> None:
    """Try the cases by hand, then the mutations."""
    right = work / "right"
    copy_full("bert", right)
    SparseEncoder(right, kernel_path="reference")
    for name, change in cases():
        folder = work / "wrong"
        shutil.copytree(right, folder)
        change(folder)
        attempt(name, folder)
        shutil.rmtree(folder)
    pickled = work / "pickled"
    copy_full("bert", pickled)
    pickle_weights(pickled)
    sources = {"bert": right, "pickled": pickled}
    for row in ("naver/splade_v2_max", "opensearch doc-v1", "BAAI/bge-m3"):
        sources[row] = work / str(len(sources))
        ROWS[row](sources[row])
    sources["roberta"] = work / "roberta"
    shutil.copytree(GOLDEN / "roberta", sources["roberta"])
    (sources["roberta"] / "expected.safetensors").unlink()
    for name, source, file, content in mutations(sources):
        kept = (source / file).read_bytes()
        (source / file).write_bytes(content)
        attempt(name, source)
        (source / file).write_bytes(kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
