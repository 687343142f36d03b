"""Measuring retrieval quality: collections, runs, metrics, a table of systems and a report."""

from minisplade.evaluation.collection import Collection, load_collection
from minisplade.evaluation.compare import Comparison, Evaluation, evaluate
from minisplade.evaluation.evaluators import (
    SparseInformationRetrievalEvaluator,
    SparseNanoBEIREvaluator,
)
from minisplade.evaluation.report import write_report
from minisplade.evaluation.trec import read_qrels, read_run, read_topics, write_run

__all__ = [
    "Collection",
    "Comparison",
    "Evaluation",
    "SparseInformationRetrievalEvaluator",
    "SparseNanoBEIREvaluator",
    "evaluate",
    "load_collection",
    "read_qrels",
    "read_run",
    "read_topics",
    "write_report",
    "write_run",
]
