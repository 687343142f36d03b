"""Encoding speed of minisplade and of every installed peer, over the same texts, in one run.

  python scripts/bench_encode.py TEXTS.jsonl.gz                          splade-tiny, 1 thread
  python scripts/bench_encode.py TEXTS.jsonl.gz --threads 1,2 --count 2048
  python scripts/bench_encode.py TEXTS.jsonl.gz --shape distilbert --count 128
  python scripts/bench_encode.py TEXTS.jsonl.gz --memory                 peak memory only

Prints one JSON line per engine and thread count. Every engine runs in a process of its own, with
texts sorted by length, at the best of several batch sizes, and the best of --passes passes counts.
Peers are left out where their packages are not installed: sentence-transformers; onnxruntime and
onnx (which also need torch, to export the model); openvino. They may encode fewer texts, taken
evenly from the same ones (--peer-count), because they need minutes for what takes seconds here.
Shapes other than tiny are random weights, with a decoder bias that leaves about 170 terms a text
active, as trained models have. scripts/report_encode.py makes a table and a plot of the lines.
"""

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minisplade.hub import find_model
from minisplade.runtime import cpu_name

Encode = Callable[[list[str], int], Any]

QUERIES = [
    "how many tablespoons of garlic powder are in an ounce",
    "what is the capital of the oldest republic in the world",
    "why does the moon look larger when it is near the horizon",
    "who wrote the letters that were found in the old library",
]
BATCHES = {"minisplade": [32], "minisplade-tiles": [32]}  # they choose for themselves
PEER_BATCHES = [1, 4, 16]
SHAPES = {  # layers, hidden size, heads, feed-forward size
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "distilbert": (6, 768, 12, 3072),
}
ENGINES = {
    "minisplade": "minisplade",
    "minisplade-tiles": "minisplade",
    "minisplade-reference": "minisplade",
    "sentence-transformers": "sentence_transformers",
    "onnxruntime-f32": "onnxruntime",
    "onnxruntime-int8": "onnxruntime",
    "openvino-f32": "openvino",
    "openvino-bf16": "openvino",
}
ACTIVE_TERMS = 170
MEMORY_TEXTS = 10_000
PEER_MEMORY_TEXTS = 64


def main() -> None:
    """Start one process per engine and thread count, and print what each reports."""
    options = _arguments()
    if options.worker:
        _work(options)
        return
    model = _model_folder(options.shape)
    for threads in [int(count) for count in options.threads.split(",")]:
        for engine in options.engines.split(",") if options.engines else _installed():
            row = _in_own_process(engine, threads, model, options)
            _print(row | {"shape": options.shape} | _machine())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", help="JSON lines with a field text, gzipped or not")
    parser.add_argument("--count", type=int, default=2048, help="texts to encode (2048)")
    parser.add_argument("--threads", default="1", help="such as 1,2")
    parser.add_argument("--shape", default="tiny", choices=["tiny", *SHAPES])
    parser.add_argument("--engines", help=f"some of {', '.join(ENGINES)}")
    parser.add_argument("--peer-count", type=int, help="texts for other engines (as --count)")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    return parser.parse_args()


def _installed() -> Iterator[str]:
    for engine, package in ENGINES.items():
        if find_spec(package) and (package != "openvino" or find_spec("onnx")):
            yield engine


def _in_own_process(
    engine: str, threads: int, model: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run one engine and return its figures."""
    command = [sys.executable, __file__, options.texts, "--worker", engine, "--model", str(model)]
    count = options.count if engine in BATCHES else options.peer_count or options.count
    command += ["--threads", str(threads), "--count", str(options.count)]
    command += ["--peer-count", str(count)]
    command += ["--passes", str(options.passes), *(["--memory"] if options.memory else [])]
    names = ("OMP", "OPENBLAS", "MKL")
    limits = {f"{name}_NUM_THREADS": str(threads) for name in names}
    environment = {**os.environ, **limits, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    environment["RAYON_NUM_THREADS"] = str(threads)
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        return {"engine": engine, "threads": threads, "error": run.stderr.strip()[-300:]}
    row: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if not options.memory:
        row["cold_start_s"] = round(_cold_start(command, environment), 3)
    return row


def _cold_start(command: list[str], environment: dict[str, str]) -> float:
    """Return the least seconds from starting a process to its first vector."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([*command, "--count", "0"], env=environment, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def _work(options: argparse.Namespace) -> None:
    """Measure one engine in this process and print a JSON line."""
    engine, threads = options.worker, int(options.threads)
    encode = LOADERS[engine](Path(options.model), threads)
    encode(QUERIES[:1], 1)
    if options.count == 0:
        return
    with (gzip.open if options.texts.endswith(".gz") else open)(options.texts, "rt") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(options.count))]
    texts = texts[:: max(1, len(texts) // options.peer_count)][: options.peer_count]
    row: dict[str, Any] = {"engine": engine, "threads": threads}
    if options.memory:
        loaded = _memory_mb()
        long_text = " ".join(texts)[:8000]  # far more than the 512 tokens that are kept
        number = MEMORY_TEXTS if engine in BATCHES else PEER_MEMORY_TEXTS
        encode([long_text] * number, number)
        _print(row | {"texts": number, "peak_over_loaded_mb": round(_memory_mb() - loaded)})
        return
    speeds = {}
    for batch in BATCHES.get(engine, PEER_BATCHES):
        seconds = min(_seconds(partial(encode, texts, batch), options.passes))
        speeds[batch] = len(texts) / seconds
    best = max(speeds, key=lambda batch: speeds[batch])
    latency = _seconds(lambda: [encode([query], 1) for query in QUERIES], 50)
    latency_ms = sorted(1e3 * seconds / len(QUERIES) for seconds in latency)
    _print(
        row
        | {
            "docs_per_s": round(speeds[best], 1),
            "tokens_per_s": round(speeds[best] * _mean_tokens(options.model, texts)),
            "texts": len(texts),
            "batch": best,
            "query_ms_p50": round(statistics.median(latency_ms), 3),
            "query_ms_p99": round(latency_ms[int(0.99 * len(latency_ms))], 3),
            "peak_mb": round(_memory_mb()),
        }
    )


def _seconds(run: Callable[[], Any], passes: int) -> list[float]:
    """Time some passes, after one that does not count."""
    run()
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _memory_mb() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _mean_tokens(model: str, texts: list[str]) -> float:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    return statistics.mean(len(e.ids) for e in tokenizer.encode_batch(texts))


# Engines: from a model folder and a number of threads to a function of texts and batch size.


def load_minisplade(model: Path, threads: int, kernel_path: str | None = None) -> Encode:
    """Load one kernel path, or the fastest that this machine has."""
    from minisplade import SparseEncoder

    encoder = SparseEncoder(model, num_threads=threads, kernel_path=kernel_path)
    return lambda texts, batch: encoder.encode_document(texts, batch_size=batch)


def load_sentence_transformers(model: Path, threads: int) -> Encode:
    """Load the reference implementation, on torch."""
    import torch
    from sentence_transformers import SparseEncoder

    torch.set_num_threads(threads)
    encoder = SparseEncoder(str(model), device="cpu")
    return lambda texts, batch: encoder.encode_document(
        texts, batch_size=batch, show_progress_bar=False
    )


def load_onnxruntime(model: Path, threads: int, int8: bool = False) -> Encode:
    """Load ONNX Runtime with pooling in the graph; int8 quantises weights dynamically."""
    import onnxruntime

    path = _onnx_file(model)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source, path = path, path.with_name("int8.onnx")
        if not path.exists():
            quantize_dynamic(source, path, weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _on_graph(model, lambda inputs: session.run(None, inputs)[0])


def load_openvino(model: Path, threads: int, precision: str = "f32") -> Encode:
    """Load OpenVINO with pooling in the graph."""
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(str(_onnx_file(model)), "CPU", settings)
    return _on_graph(model, lambda inputs: compiled(inputs)[0])


LOADERS: dict[str, Callable[[Path, int], Encode]] = {
    "minisplade": load_minisplade,
    "minisplade-tiles": lambda model, threads: load_minisplade(model, threads, "tiles"),
    "minisplade-reference": lambda model, threads: load_minisplade(model, threads, "reference"),
    "sentence-transformers": load_sentence_transformers,
    "onnxruntime-f32": load_onnxruntime,
    "onnxruntime-int8": lambda model, threads: load_onnxruntime(model, threads, int8=True),
    "openvino-f32": load_openvino,
    "openvino-bf16": lambda model, threads: load_openvino(model, threads, "bf16"),
}


def _on_graph(model: Path, forward: Callable[[dict[str, Any]], Any]) -> Encode:
    """Tokenize, pad texts of like length together, run a graph, and keep what is not 0."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def encode(texts: list[str], batch: int) -> None:
        ordered = sorted(texts, key=len, reverse=True)
        for start in range(0, len(ordered), batch):
            encodings = tokenizer.encode_batch_fast(ordered[start : start + batch])
            weights = forward(
                {
                    "input_ids": np.array([e.ids for e in encodings]),
                    "attention_mask": np.array([e.attention_mask for e in encodings]),
                }
            )
            rows, terms = np.nonzero(weights)
            weights[rows, terms]

    return encode


def _onnx_file(model: Path) -> Path:
    """Export a model with SPLADE pooling, once per folder."""
    path = Path(tempfile.gettempdir()) / "minisplade-bench" / model.name / "float32.onnx"
    if path.exists():
        return path
    import torch
    from transformers import AutoModelForMaskedLM

    class Splade(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mlm = AutoModelForMaskedLM.from_pretrained(
                str(model), attn_implementation="eager"
            ).eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            logits = self.mlm(input_ids=input_ids, attention_mask=attention_mask).logits
            return (torch.relu(logits) * attention_mask[..., None]).amax(1).log1p()

    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "texts", 1: "tokens"} for name in ("input_ids", "attention_mask")}
    partial = path.with_suffix(".partial")
    torch.onnx.export(
        Splade(),
        (example, example),
        str(partial),
        input_names=list(axes),
        output_names=["weights"],
        dynamic_axes={**axes, "weights": {0: "texts"}},
        opset_version=17,
        dynamo=False,
    )
    partial.rename(path)
    return path


def _model_folder(shape: str) -> Path:
    """Return the real model, or write a random one of another shape."""
    tiny = find_model()
    if shape == "tiny":
        return tiny
    folder = Path(tempfile.gettempdir()) / "minisplade-bench" / f"random-{shape}"
    if not (folder / "model.safetensors").exists():
        _write_random_model(tiny, folder, *SHAPES[shape])
    return folder


def _write_random_model(
    tiny: Path, folder: Path, layers: int, hidden: int, heads: int, inner: int
) -> None:
    """Write seeded random weights in the BERT layout, few of whose logits are positive."""
    from safetensors.numpy import save_file

    from minisplade import SparseEncoder
    from minisplade.models.architectures import BERT
    from minisplade.models.names import param_shapes, read_config, stored_name
    from minisplade.tokenization import pad, tokenize

    raw = json.loads((tiny / "config.json").read_text())
    raw |= {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    raw |= {"intermediate_size": inner}
    rng = np.random.default_rng(0)
    weights = {}
    for name, size in param_shapes(read_config(raw)).items():
        norm = name.endswith("norm.weight")
        values = rng.normal(1.0 if norm else 0.0, 0.02 if len(size) == 1 else 0.05, size)
        if name != "head.decoder.weight":
            weights[stored_name(BERT, name).name] = values.astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    encoder = SparseEncoder(folder, kernel_path="reference")
    batch = pad(tokenize(encoder.tokenizer, QUERIES * 4, 512), 0)
    peaks = encoder.model.logits(batch.input_ids, batch.attention_mask).max(axis=1)
    lowered = np.quantile(peaks, 1 - ACTIVE_TERMS / peaks.shape[1])
    weights[stored_name(BERT, "head.decoder.bias").name] -= np.float32(lowered)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    versions = {}
    for package in ("minisplade", "numpy", "numba", "torch", "onnxruntime", "openvino"):
        if find_spec(package):
            versions[package] = importlib.metadata.version(package)
    machine = f"{cpu_name()}, {platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "versions": versions}


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
