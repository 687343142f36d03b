"""Files of runs, judgements, topics and collections: what is read, and what is refused."""

import gzip
from pathlib import Path

import ir_measures
import pytest

from minisplade import InputError
from minisplade.evaluation import (
    load_collection,
    read_qrels,
    read_run,
    read_topics,
    write_run,
)

RUN = {"q1": {"b": 2.5, "a": 1 / 3}, "q2": {"c": 1e-9}}


def test_runs_come_back_as_they_were(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", RUN, "mine")
    assert read_run(tmp_path / "run.trec") == RUN
    assert list(read_run(tmp_path / "run.trec")["q1"]) == ["b", "a"]
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q1 Q0 b 1 2.5 mine"


def test_others_read_our_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", RUN)
    read = ir_measures.read_trec_run(str(tmp_path / "run.trec"))
    assert [(d.query_id, d.doc_id, d.score) for d in read] == [
        (query, key, score) for query, own in RUN.items() for key, score in own.items()
    ]


def test_runs_are_ranked_by_score(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q Q0 a 1 0.5 t\n\nq\tQ0\tb\t2\t0.75\tt\n")
    assert list(read_run(tmp_path / "run")["q"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a 1 0.5", "line 2: 5 fields; expected 6"),
        ("q Q0 a 1 high t", "line 2: 'high' is not a number"),
        ("q Q0 z 1 0.5 t", "line 2: query q has document z twice"),
    ],
)
def test_bad_runs_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "run").write_text(f"q Q0 z 1 0.5 t\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["", "a b", " a", "a\n"])
def test_names_that_no_reader_could_split_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot stand in a run"):
        write_run(tmp_path / "run", {"q": {name: 1.0}})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 1\n",
        "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td1\t1\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
    ],
)
def test_judgements_of_every_layout(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}


@pytest.mark.parametrize(
    ("line", "message"),
    [("q d", "2 fields"), ("q 0 d x", "'x' is not a number"), ("q 0 d 0.5", "no whole number")],
)
def test_bad_judgements_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "qrels").write_text(f"{line}\n")
    with pytest.raises(InputError, match=f"line 1: .*{message}"):
        read_qrels(tmp_path / "qrels")


TOPICS = {"301": "International Organized Crime", "302": "Poliomyelitis and Post-Polio"}


@pytest.mark.parametrize(
    "text",
    [
        "<top>\n<num> Number: 301\n<title> International Organized Crime\n\n<desc> Description:\n"
        "Identify.\n</top>\n<top>\n<num>302</num>\n<title>Poliomyelitis and Post-Polio</title>\n"
        "</top>\n",
        "<top>\n<num> Number: 301 \n<title> Topic: International\nOrganized Crime\n<desc>\n"
        "<top>\n<num> Number: 302\n<title> Poliomyelitis and Post-Polio\n",
        '<topics><topic number="301"><query>International Organized Crime</query><question>?'
        '</question></topic><topic number="302">\n<title>Poliomyelitis and Post-Polio</title>'
        "</topic></topics>",
        "301\tInternational Organized Crime\n302\tPoliomyelitis and Post-Polio\n",
    ],
)
def test_topics_of_every_layout(tmp_path: Path, text: str) -> None:
    (tmp_path / "topics").write_text(text)
    assert read_topics(tmp_path / "topics") == TOPICS


def test_bad_topics_are_refused(tmp_path: Path) -> None:
    for text, message in [
        ("<top><num>3</top>", "without number or title: <top><num>3"),
        ("<html></html>", "has no <top> or <topic>"),
        ("301 no tab", "line 1: no tab"),
    ]:
        (tmp_path / "topics").write_text(text)
        with pytest.raises(InputError, match=message):
            read_topics(tmp_path / "topics")
    (tmp_path / "topics").write_bytes(b"1\tcaf\xe9")
    with pytest.raises(InputError, match="line 1: not UTF-8: byte 0xe9"):
        read_topics(tmp_path / "topics")


def test_a_beir_folder(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write('{"_id": "d1", "title": "A", "text": "b"}\n{"_id": "d2", "text": "c"}\n')
    (tmp_path / "queries.jsonl").write_text(
        "".join(f'{{"_id": "q{i}", "text": "query {i}"}}\n' for i in (3, 1, 2))
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\nq3\td2\t2\nq3\tgone\t1\n"
    )
    collection = load_collection(tmp_path)
    assert collection.documents == {"d1": "A b", "d2": "c"}
    assert list(collection.queries.items()) == [("q3", "query 3"), ("q1", "query 1")]
    assert collection.relevant == {"q3": {"d2", "gone"}, "q1": {"d1"}}
    with pytest.raises(InputError, match="has no judgements: there is none of qrels/dev.tsv"):
        load_collection(tmp_path, "dev")


def test_an_ms_marco_folder(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text('0\tThe "presence" of\n7\tcommunication\r\n')
    (tmp_path / "queries.dev.small.tsv").write_text("1048585\twhat is paula\n2\tother\n")
    (tmp_path / "qrels.dev.small.tsv").write_text("1048585\t0\t7\t1\n")
    collection = load_collection(tmp_path, "dev.small")
    assert collection.documents == {"0": 'The "presence" of', "7": "communication"}
    assert collection.queries == {"1048585": "what is paula"}
    assert collection.name == tmp_path.name


def test_documents_of_ms_marco_have_four_fields(tmp_path: Path) -> None:
    (tmp_path / "msmarco-docs.tsv").write_text("D1\thttp://x\tTitle\tBody\n")
    (tmp_path / "topics.txt").write_text("<top><num>1<title>what</top>")
    (tmp_path / "qrels.txt").write_text("1 0 D1 1\n")
    assert load_collection(tmp_path).documents == {"D1": "Title Body"}


def test_bad_collections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_collection(tmp_path / "nowhere")
    (tmp_path / "qrels.tsv").write_text("q 0 d 0\n")
    (tmp_path / "queries.tsv").write_text("q\ttext\n")
    with pytest.raises(InputError, match="no query has a relevant document"):
        load_collection(tmp_path)
    (tmp_path / "qrels.tsv").write_text("x 0 d 1\n")
    with pytest.raises(InputError, match="no query of the judgements is among the queries"):
        load_collection(tmp_path)
    (tmp_path / "qrels.tsv").write_text("q 0 d 1\n")
    for text, message in [("d\ta\nd\tb\n", "line 2: key 'd' came before"), ("d\n", "no tab")]:
        (tmp_path / "collection.tsv").write_text(text)
        with pytest.raises(InputError, match=message):
            load_collection(tmp_path)
