"""Data sets of prompts: read from files, dealt to the samples, kept with them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_sets import change, files, galatea
from dataset_samples import COUNT, LABEL, READERS, SEED, grouped, samples, shard, write
from galatea import Client, InvalidInput, datasets
from galatea.card import Input, ModelCard
from galatea.datasets._job import Job, new_job
from galatea.datasets._prompts import Row, deal, read_rows
from galatea.datasets.formats import FORMATS
from galatea_server.server import EmbeddedServer

PROMPT = Input("prompt", "BYTES")
CARD = ModelCard(
    name="words", version=1, family="stable_diffusion", task="text-to-image",
    inputs=(
        SEED, PROMPT, Input("negative_prompt", "BYTES", default=""),
        Input("steps", "INT32", default=50, minimum=1, maximum=1000),
        Input("guidance", "FP32", default=7.5, minimum=0.0, maximum=30.0),
    ),
    outputs=samples("grey").card.outputs,
)  # fmt: skip

CSV = """\
prompt,n,label,guidance
"a chest X-ray, no findings",3,normal,
"„Erguss“, left",2,effusion,4
a large effusion,,effusion,4.5
"""
JSON_LINES = """\
{"prompt": "a chest X-ray, no findings", "n": 3, "label": "normal"}
{"prompt": "„Erguss“, left", "n": 2, "label": "effusion", "guidance": 4}

{"prompt": "a large effusion", "label": "effusion", "guidance": 4.5}
"""
ROWS = (
    Row(3, {"guidance": 7.5, "prompt": "a chest X-ray, no findings"}, "normal"),
    Row(2, {"guidance": 4.0, "prompt": "„Erguss“, left"}, "effusion"),
    Row(1, {"guidance": 4.5, "prompt": "a large effusion"}, "effusion"),
)


def rows(content: str, path: Path, card: ModelCard = CARD, **given: Any) -> tuple[Row, ...]:
    """The rows of a file with this content."""
    path.write_text(content, "utf-8")
    return read_rows(path, card, given)


def job(*given: Row, card: ModelCard = CARD, n: int | None = None) -> Job:
    return new_job(card, n, 0, {}, FORMATS["npz"], 2, given)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", CSV), ("a.csv", "\ufeff" + CSV.replace("\n", "\r\n")), ("a.jsonl", JSON_LINES)],
    ids=["csv", "csv of a spreadsheet", "json lines"],
)
def test_files_that_say_the_same_make_the_same(name: str, content: str, tmp_path: Path) -> None:
    assert rows(content, tmp_path / name) == ROWS
    listed = [json.loads(line) for line in JSON_LINES.splitlines() if line]
    assert read_rows(listed, CARD, {"steps": 20}) == ROWS


def test_labels_are_the_classes_of_a_model_that_has_them(tmp_path: Path) -> None:
    card = replace(CARD, inputs=(SEED, PROMPT, LABEL))
    found = rows("prompt,label\na,1\nb,benign\n", tmp_path / "a.csv", card)
    classes = [row.conditions["label"] for row in found]
    assert classes == ["malignant", "benign"]
    assert job(*found, card=card).classes == ("benign", "malignant")
    with pytest.raises(InvalidInput, match="line 2: words has no label 'vague'"):
        rows("prompt,label\na,vague\n", tmp_path / "a.csv", card)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "prompt\na\n", "no file of prompts is called so"),
        ("a.csv", "", "line 1: the columns are none"),
        ("a.csv", "prompt;n\na;1\n", r"line 1: the columns are 'prompt;n'.*with commas"),
        ("a.csv", "prompt,n,n\na,1,1\n", "line 1: the columns are 'prompt', 'n', 'n'"),
        ("a.csv", "prompt\n", "there are no prompts"),
        ("a.csv", "prompt,n\na,1\nb, left,1\n", "line 3: there are 3 cells, and 2 in the header"),
        ("a.csv", 'prompt,n\na,1\n"b,1\n', "line 3: unexpected end of data"),
        ("a.csv", "prompt,n\n,1\n", "line 2: there is no prompt"),
        ("a.csv", "prompt,n\na,many\n", "line 2: n 'many' is no whole number"),
        ("a.csv", "prompt,n\na,0\n", "line 2: n is 0"),
        ("a.csv", "prompt,guidance\na,high\n", "line 2: guidance 'high' is no number"),
        ("a.csv", "prompt,guidance\na,1\nb,99\n", "line 3: words has no guidance 99"),
        ("a.csv", "prompt,guidence\na,1\n", "line 2: words has no condition 'guidence'"),
        ("a.csv", "prompt,label\na,x\nb,\n", "line 3: there is no label, which other rows have"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "b"\n', "line 2: no JSON"),
        ("a.jsonl", '"a"\n', "line 1: no JSON object"),
        ("a.jsonl", '{"prompt": ["a", "b"]}\n', "line 1: .*prompt"),
        ("a.jsonl", '{"prompt": "a", "steps": 2.5}\n', "line 1: words has no steps 2.5"),
        ("a.jsonl", '{"prompt": "a", "n": 1.0}\n', "line 1: n is 1.0"),
        ("a.jsonl", '{"prompt": "a", "label": ["x"]}\n', "line 1: the label"),
    ],
)
def test_a_wrong_line_is_named(name: str, content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(InvalidInput, match=words) as caught:
        rows(content, path)
    assert caught.value.problem.startswith(str(path))


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(InvalidInput, match="line 3: guidance is given for all samples too"):
        rows(CSV, path, guidance=3.0)
    with pytest.raises(InvalidInput, match="steps is a list beside prompts"):
        rows(CSV, path, steps=[10, 20])
    with pytest.raises(InvalidInput, match="made-grey takes no prompt"):
        rows(CSV, path, samples("grey").card)
    with pytest.raises(InvalidInput, match="n is 7, and the prompts make 6 images together"):
        job(*ROWS, n=7)
    with pytest.raises(InvalidInput, match=r"missing\.csv: cannot be read"):
        read_rows(tmp_path / "missing.csv", CARD, {})


@pytest.mark.parametrize(
    "counts",
    [[("a", 1)] * 600 + [("b", 1)] * 300, [("a", 5), ("b", 1)] * 90, [("a", 990), ("b", 10)]],
    ids=["one after the other", "in turn", "rare"],
)
def test_every_run_of_samples_has_its_share_of_each_label(counts: list[tuple[str, int]]) -> None:
    made = [Row(n, {"prompt": str(k)}, label) for k, (label, n) in enumerate(counts)]
    dealt = deal(made)
    assert Counter(dealt.tolist()) == Counter({k: n for k, (_, n) in enumerate(counts)})
    is_b = np.array([label == "b" for label, _ in counts])[dealt]
    for size in (30, 100):
        for part in np.split(is_b, range(size, len(is_b), size)):
            assert abs(part.sum() - is_b.mean() * len(part)) <= 2


def test_an_order_is_read_back_as_it_was_written() -> None:
    made = job(*ROWS)
    assert Job.from_plain(json.loads(made.to_json())) == made
    plain = made.to_plain()
    plain["prompts"][0]["n"] = 4
    with pytest.raises(ValueError, match="its prompts are not those of its samples"):
        Job.from_plain(plain)
    assert "prompts" not in job(n=4, card=samples("grey").card).to_plain()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_prompts_and_labels(name: str, tmp_path: Path) -> None:
    prompts = [f"Läsion {'x' * k}, links" for k in range(COUNT)]
    conditions = {"prompt": np.array(prompts, object), "label": np.arange(COUNT) % 2}
    plain = replace(samples("wide"), conditions=conditions, classes=("normal", "effusion"))
    written = write(FORMATS[name], shard("wide", samples=plain), tmp_path)
    read = list(READERS[name](written))
    assert [sample.provenance["galatea:prompt"] for sample in read] == prompts
    labels = [sample.provenance["galatea:label_name"] for sample in read]
    assert labels == ["normal", "effusion", "normal", "effusion", "normal"]
    if name == "webdataset":
        assert [row["txt"].decode() for row in grouped(written[0])] == prompts
        assert [row["cls"] for row in grouped(written[0])] == [b"0", b"1", b"0", b"1", b"0"]


@pytest.fixture
def words(client: Client) -> str:
    """A served generator that takes prompts."""
    return next(
        card.name
        for card in client.models()
        if any(entry.name == "prompt" for entry in card.inputs)
    )


def test_a_data_set_of_prompts_holds_the_samples_of_its_rows(
    server: EmbeddedServer, client: Client, words: str, tmp_path: Path
) -> None:
    path, folder = tmp_path / "prompts.csv", tmp_path / "made"
    path.write_text(CSV, "utf-8")
    done = galatea("generate", words, "--prompts", path, "--seed", 7, "--set", "steps=2",
                   "--shard-size", 4, "--format", "npz", "-o", folder, "--json",
                   "--url", server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 6
    manifest = datasets.read_manifest(folder)
    assert manifest.classes == {"normal": 3, "effusion": 3}
    assert datasets.verify(folder) == []
    shown = galatea("dataset", "info", folder).stdout
    assert "2 × '„Erguss“, left' (label effusion, guidance 4.0)" in shown
    indexes = [json.loads(file.read_text()) for file in sorted((folder / "shards").iterdir())]
    prompts = [prompt for index in indexes for prompt in index["conditions"]["prompt"]]
    assert Counter(prompts) == {row.conditions["prompt"]: row.n for row in ROWS}
    first = np.load(folder / "000000.npz")
    sampled = client.sample(
        words, 4, seed=7, steps=2, prompt=prompts[:4], guidance=first["guidance"].tolist()
    )
    assert np.array_equal(first["images"], sampled.images)

    before = files(folder)
    (folder / "shards" / "000000.json").unlink()
    given: dict[str, Any] = {"seed": 7, "steps": 2, "shard_size": 4, "format": "npz"}
    outcome = datasets.generate(client, words, 6, folder, prompts=path, **given)
    assert (outcome.found, outcome.made) == (2, 4)
    assert files(folder) == before
    change(path, "a large", "a small")
    with pytest.raises(InvalidInput, match="prompt 'a large effusion' in row 3, not 'a small eff"):
        datasets.generate(client, words, None, folder, prompts=path, **given)
    assert files(folder) == before


def test_a_data_set_needs_a_number_or_prompts(server: EmbeddedServer, tmp_path: Path) -> None:
    done = galatea("generate", "masses", "-o", tmp_path / "out", "--url", server.grpc_url)
    assert done.returncode == 2
    assert "Give -n, or --prompts." in done.stderr
