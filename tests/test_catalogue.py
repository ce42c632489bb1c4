"""The catalogue tells the truth about its models, and one search finds them and what is served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from galatea import Client, InvalidInput, Metric, ModelCard, Output
from galatea.catalogue import Entry, entries, find, parse
from galatea.search import Query, figure, incomparable, size
from galatea_exporter.export import NAME
from galatea_exporter.family import families, parse_options
from galatea_exporter.importing.run import default_name
from galatea_server.server import EmbeddedServer

ENTRIES = list(entries().values())
MEDIGAN = [entry for entry in ENTRIES if entry.id[:5].isdecimal()]

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id[:24])


def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def ids(found: list[Entry]) -> list[str]:
    return [entry.id.partition("_")[0] for entry in found]


def test_all_models_of_medigan_are_there() -> None:
    assert ids(MEDIGAN) == [f"{k:05d}" for k in range(1, 24)]


@every_entry
def test_an_entry_tells_what_a_user_must_know(entry: Entry) -> None:
    for fact in (entry.title, entry.description, entry.modality, entry.organ, entry.licence,
                 entry.training_dataset, entry.generates, entry.weights.page):  # fmt: skip
        assert fact
    assert [output.name for output in entry.outputs][:1] == ["image"]
    assert entry.family or entry.unsupported
    assert bool(entry.unsupported) == bool(entry.instead)
    assert entry.terms or entry.licence != "NOASSERTION"
    assert NAME.fullmatch(default_name(entry))


@every_entry
def test_the_facts_have_the_form_of_what_they_are(entry: Entry) -> None:
    assert re.fullmatch(r"(10\.\d{4,}/\S+)?", entry.doi)
    assert re.fullmatch(r"[A-Za-z0-9.-]+", entry.licence)
    assert re.fullmatch(r"([0-9a-f]{64})?", entry.weights.sha256)
    for address in (entry.source, entry.weights.page, entry.weights.url):
        assert re.fullmatch(r"(https://\S+)?", address)
    for condition in entry.conditions:
        assert condition.name != "label" or condition.labels
    for metric in entry.metrics:
        assert metric.source
        assert metric.extractor or "FID" not in metric.name


@pytest.mark.parametrize(
    "entry",
    [entry for entry in ENTRIES if entry.family in families()],
    ids=lambda entry: entry.id[:24],
)
def test_the_configuration_is_one_of_its_family(entry: Entry) -> None:
    texts = {
        key: ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        for key, value in entry.configuration.items()
    }
    options = parse_options(families()[entry.family].options, texts)
    for key, value in entry.configuration.items():
        assert getattr(options, key) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("entry", MEDIGAN, ids=lambda entry: entry.id[:5])
def test_a_package_is_named_with_its_weights(entry: Entry) -> None:
    assert entry.weights.url.startswith(entry.weights.page)
    assert entry.weights.member_files()
    assert not any("{" in name for name in entry.weights.member_files())


def test_every_model_of_medigan_whose_network_is_known_has_its_family() -> None:
    assert {entry.family for entry in MEDIGAN if not entry.unsupported} <= set(families())
    assert [entry.id for entry in MEDIGAN if entry.unsupported] == ["00019_PGGAN_CHEST_XRAY"]


def test_what_the_source_says_wrongly_is_corrected() -> None:
    assert find("00012").training_dataset == "BCDR"
    assert find("00019").training_dataset == "ChestX-ray14"
    assert size(find("00020")) == (1024, 1024)
    assert size(find("00021")) == (224, 192)
    assert size(find("00022")) == (128, 128)
    assert find("00005").configuration == {"low": -1.0, "high": 0.0}
    assert figure(find("00023"), "SEG_dice_trained_on_real_and_fake") == Metric(
        "SEG_dice_trained_on_real_and_fake", 0.797, True, source="medigan config/global.json"
    )
    assert find("00021").year == find("00003").year == 2021
    assert {find(id_).task for id_ in ("00008", "00012")} == {"class-conditional"}
    for id_ in ("00009", "00010", "00011"):
        assert find(id_).configuration["mask_channel"] == 3
        assert [output.name for output in find(id_).outputs] == ["image", "mask"]


def test_an_entry_is_found_by_its_id_and_by_the_beginning_of_it() -> None:
    assert find("00001") is find("00001_DCGAN_MMG_CALC_ROI") is find("00001_dcgan_mmg_calc_roi")
    assert find("akbar-stylegan2").family == "stylegan2"


@pytest.mark.parametrize(
    ("id_", "words"),
    [
        ("00024", "00023_PIX2PIXHD"),
        ("00001_DCGAN_MMG_CALC_RIO", "did you mean 00001_DCGAN_MMG_CALC_ROI"),
        ("melanona", "aidotse-stylegan2ada-melanoma"),
        ("polyp", "00009_PGGAN_POLYP_PATCHES_W_MASKS or 00010"),
        ("0001", "begins several ids; choose one of: 00010_FASTGAN"),
        ("zzz", "galatea catalog"),
        ("", "galatea catalog"),
    ],
)
def test_an_unknown_id_is_answered_with_the_near_ones(id_: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        find(id_)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel = 'x'", "no field 'titel'"),
        ("title = 1", "title is 1, not of type str"),
        ("title = 'x'", "missing"),
        ("title = ", "Invalid value"),
    ],
)
def test_a_file_that_is_not_valid_is_named_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"00001: .*{words}"):
        parse("00001", text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query("polyp mask"), ["00009", "00010", "00011"]),
        (Query("MASS mammography density"), []),
        (Query("calcification"), ["00001"]),
        (Query("CXR nodules", size="128"), ["00017", "00018"]),
        (Query("x-ray", organ="lung", licence="mit", task="unconditional"),
         ["00017", "00018", "00019", "00020"]),
        (Query(modality="MRI", task="image-to-image"), ["00007", "00021", "00022", "00023"]),
        (Query(family="dcgan", task="class-conditional"), ["00008", "00012"]),
        (Query(licence="GPL"), ["00010"]),
        (Query(modality="mammography", size=">=512"),
         ["00003", "00013", "00014", "00015", "00016"]),
        (Query(size="224x192"), ["00021"]),
        (Query(organ="heart"), ["00022"]),
        (Query(size="<128"), ["monai-mednist-gan"]),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_words_and_filters_find_what_all_of_them_match(query: Query, expected: list[str]) -> None:
    assert ids(query.search(ENTRIES)) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [({"task": "dreaming"}, "text-to-image"), ({"size": "big"}, "256x192"), ({"size": "-1"}, "x")],
)
def test_a_query_that_means_nothing_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Query(**given)
    assert words in refused.value.remedy


def test_a_ranking_goes_by_the_direction_of_the_metric_and_ends_with_what_has_none() -> None:
    by_fid = Query(modality="mammography").search(ENTRIES, "fid")
    figures = [metric.value for entry in by_fid if (metric := figure(entry, "FID"))]
    assert figures == sorted(figures)
    by_ratio = Query().search(ENTRIES, "FID_ratio")
    known = [metric.value for entry in by_ratio if (metric := figure(entry, "FID_ratio"))]
    assert known == sorted(known, reverse=True)
    assert [figure(entry, "FID_ratio") is None for entry in by_ratio] == (
        [False] * len(known) + [True] * (len(ENTRIES) - len(known))
    )
    without = by_ratio[len(known) :]
    assert ids(without) == sorted(ids(without))


def test_equal_figures_are_ranked_by_id() -> None:
    same = [replace(find("00005"), id=id_) for id_ in ("c", "a", "b")]
    assert [entry.id for entry in Query().search(same, "FID")] == ["a", "b", "c"]


def test_a_metric_that_nothing_has_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'beauty'; rank by one of: .*FID_RADIMAGENET"):
        Query(organ="colon").search(ENTRIES, "beauty")


def test_figures_that_disagree_about_which_end_is_better_are_not_ranked() -> None:
    wrong = replace(find("00005"), id="wrong", metrics=(Metric("FID", 1.0, True),))
    with pytest.raises(InvalidInput, match="some models a higher FID"):
        Query().search([find("00005"), wrong], "FID")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"n": 999}, "n differs"),
        ({"extractor": "CLIP"}, "extractor differs"),
        ({"normalisation": ""}, "normalisation differs"),
    ],
)
def test_figures_are_comparable_only_by_the_same_rule(changes: dict[str, Any], why: str) -> None:
    one = Metric("FID", 1.0, False, "Inception v3", "none", 1000)
    assert incomparable([one, replace(one, value=2.0, **changes), None]) == why


def test_figures_whose_rule_is_not_known_are_not_comparable() -> None:
    one = Metric("FID", 1.0, False, "Inception v3", "", 1000)
    assert incomparable([one, one]) == "normalisation is not known"
    assert incomparable([one]) == ""


def card_of(entry: Entry) -> ModelCard:
    """What an import of the entry serves, as far as a search can see it."""
    return ModelCard(
        name=default_name(entry), version=1, family=entry.family, task=entry.task, inputs=(),
        outputs=tuple(Output(o.name, o.dtype, o.shape, o.channels) for o in entry.outputs),
        title=entry.title, description=entry.description, modality=entry.modality,
        organ=entry.organ, generates=entry.generates, tags=entry.tags, catalogue_id=entry.id,
        training_dataset=entry.training_dataset, licence=entry.licence, metrics=entry.metrics,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "rank"),
    [
        (Query("polyp"), "FID"),
        (Query(modality="mammography", size=">=512"), ""),
        (Query("00013"), ""),
        (Query(task="unconditional", licence="MIT"), "FID_RADIMAGENET"),
    ],
)
def test_what_is_served_is_found_and_ranked_as_in_the_catalogue(query: Query, rank: str) -> None:
    found = query.search(MEDIGAN, rank)
    served = query.search([card_of(entry) for entry in MEDIGAN], rank)
    assert [card.catalogue_id for card in served] == [entry.id for entry in found]
    assert found


def test_the_client_searches_what_a_server_has(client: Client) -> None:
    assert [card.name for card in client.search("breast phantom")] == ["phantom"]
    conditional = client.search(task="class-conditional", licence="CC0", size="64x64")
    assert [card.name for card in conditional] == ["masses"]
    assert client.search("mammography", organ="brain") == []
    assert client.search() == client.models()
    with pytest.raises(InvalidInput, match="'FID'"):
        client.search(rank="FID")


def test_models_takes_the_words_and_filters_of_the_catalogue(server: EmbeddedServer) -> None:
    url = ("--url", server.grpc_url)
    done = galatea("models", "phantoms", "--organ", "breast", "--size", "128", *url)
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["phantom"]
    nothing = galatea("models", "unicorn", *url)
    assert nothing.returncode == 0
    assert "nothing that" in nothing.stderr


def test_the_catalogue_is_listed_and_ranked_on_the_command_line() -> None:
    done = galatea("catalog", "polyp", "--rank", "FID")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["63.99", "171.15", "225.85"]
    assert rows[0][1:5] == [
        "Inception v3, ImageNet", "unknown", "1000", "00010_FASTGAN_POLYP_PATCHES_W_MASKS",
    ]  # fmt: skip
    assert "not strictly comparable: normalisation is not known" in done.stderr
    mixed = galatea("catalog", "--modality", "mammography", "--rank", "FID")
    assert "n differs" in mixed.stderr
    assert "--json" not in galatea("catalog", "polyp").stderr


def test_the_catalogue_is_json_for_programs() -> None:
    plain = json.loads(galatea("catalog", "--family", "cyclegan", "--json").stdout)
    assert len(plain) == 6
    shown = json.loads(galatea("catalog", "--show", "00013", "--json").stdout)
    assert shown in plain
    assert shown["weights"]["members"] == {"low_to_high": "G_A", "high_to_low": "G_B"}


@pytest.mark.parametrize("entry", [find("00011"), find("00019"), find("roentgen")])
def test_an_entry_is_shown_with_all_that_it_says(entry: Entry) -> None:
    done = galatea("catalog", "--show", entry.id)
    assert done.returncode == 0, done.stderr
    for fact in (entry.title, entry.licence, entry.terms, entry.unsupported, entry.instead,
                 entry.training_dataset, entry.doi, *entry.notes):  # fmt: skip
        assert fact in done.stdout


def test_a_family_that_is_not_there_yet_is_said_to_be_missing() -> None:
    unknown = [entry for entry in ENTRIES if entry.family and entry.family not in families()]
    for row in json.loads(galatea("catalog", "--json").stdout):
        missing = row["id"] in {entry.id for entry in unknown}
        assert (row["export"] == "not yet") == (missing and not row["unsupported"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--show", "0000x"], 5, "the catalogue has no '0000x'"),
        (["--rank", "beauty"], 5, "rank by one of"),
        (["--size", "huge"], 5, "is no size"),
        (["--task", "dreaming"], 2, "is not one of"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_sentence(
    arguments: list[str], code: int, words: str
) -> None:
    done = galatea("catalog", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""


def test_shells_complete_ids() -> None:
    from click.shell_completion import BashComplete

    from galatea.cli import main

    shell = BashComplete(main, {}, "galatea", "_GALATEA_COMPLETE")
    for arguments in (["import"], ["catalog", "--show"]):
        values = [item.value for item in shell.get_completions(arguments, "0001")]
        assert values == [id_ for id_ in entries() if id_.startswith("0001")]
