"""Bulk jobs: what is rendered runs ``galatea generate``, and survives workers that are ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_sets import command_line, files, galatea
from galatea_server.deploy.manifests import load
from galatea_server.deploy.rules import check
from galatea_server.deploy.schema import VERSION, check_schema
from galatea_server.server import EmbeddedServer
from support import ROOT, wait_until

JOBS = ROOT / "k8s" / "jobs"
OLDEST = "1.33"  # of which there are schemas
ORDER = ["phantom", "-n", "2000", "--seed", "7", "--format", "webdataset"]
STORE = ["-o", "s3://studies/phantom", "--secret", "keys"]
CLAIM = ["-o", "pvc:studies/phantom"]


@pytest.fixture(scope="module")
def server(phantom_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(phantom_repository) as running:
        yield running


def rendered(*arguments: object) -> list[Any]:
    """The objects of an order, faultless ones."""
    done = galatea("deploy", "job", *arguments)
    assert done.returncode == 0, done.stderr
    manifests = load(done.stdout, "stdout")
    for version in (OLDEST, VERSION):
        assert [*check_schema(manifests, version), *check(manifests)] == []
    return manifests


def words(manifest: Any, index: int = 0) -> list[str]:
    """The arguments of a Job's container, as Kubernetes gives them to the worker `index`."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    known = {"JOB_COMPLETION_INDEX": str(index)}

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else known.get(match[1], match[0])

    return [re.sub(r"\$\$|\$\(([A-Z_]+)\)", value, word) for word in container["args"]]


def actions(job: Any) -> dict[int, str]:
    """What happens after an exit code, by the Job's policy for failures."""
    rules = job["spec"]["podFailurePolicy"]["rules"]
    return {
        code: rule["action"]
        for rule in rules
        for code in rule.get("onExitCodes", {}).get("values", [])
    }


@pytest.mark.parametrize(
    "more",
    [
        STORE,
        CLAIM,
        [*STORE, "--shards", 5, "--parallelism", 2, "--max-failed", 9, "--deadline", 3600],
        [*STORE, "--shards", 3, "--endpoint", "http://minio:9000", "--priority-class", "low"],
        [*CLAIM, "--shards", 3, "--namespace", "studies", "--service-account", "writer"],
    ],
)  # fmt: skip
def test_an_order_gives_the_same_faultless_jobs_each_time(more: list[object]) -> None:
    assert rendered(*ORDER, *more) == rendered(*ORDER, *more)


def test_the_name_is_that_of_the_order_whoever_carries_it_out() -> None:
    def name(*arguments: object) -> str:
        found: str = rendered(*ORDER, *arguments)[0]["metadata"]["name"]
        return found

    first = name(*STORE)
    assert re.fullmatch("galatea-generate-phantom-[0-9a-f]{8}", first)
    same = name(*STORE, "--shards", 4, "--parallelism", 2, "--memory", "1Gi", "--retries", 1)
    assert same == first
    others = {name(*CLAIM), name(*STORE, "--seed", 8), name(*STORE, "--labels", "benign")}
    assert len({first, *others}) == 4
    long = rendered("A_very.long" * 9, *ORDER[1:], *STORE, "--shards", 10_000, "-n", 10_000)
    names = [job["metadata"]["name"] for job in long]
    assert all(re.fullmatch("[a-z0-9](-?[a-z0-9])*", name) for name in names)
    assert max(map(len, [f"{names[0]}-9999", names[1]])) <= 63  # the host name of a worker


def test_without_a_seed_one_is_drawn_for_all_workers() -> None:
    order = [*ORDER[:3], *STORE, "--shards", 3]
    first, second = galatea("deploy", "job", *order), galatea("deploy", "job", *order)
    seeds = [re.search(r"--seed (\d+) was drawn", done.stderr) for done in (first, second)]
    told = [words(load(done.stdout, "")[0]) for done in (first, second)]
    for seed, arguments in zip(seeds, told, strict=True):
        assert seed is not None
        assert arguments[arguments.index("--seed") + 1] == seed[1]
    assert told[0] != told[1]


def test_the_parts_are_those_of_generate_and_are_joined_when_all_are_there() -> None:
    job, merge = rendered(*ORDER, *STORE, "--shards", 3, "--parallelism", 2)
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 2)
    assert [words(job, k)[-3] for k in range(3)] == ["0/3", "1/3", "2/3"]
    assert merge["spec"]["suspend"] is True
    assert words(merge) == ["dataset", "merge", "s3://studies/phantom"]
    told = galatea("deploy", "job", *ORDER, *STORE, "--shards", 3, "--namespace", "studies").stderr
    wait = "kubectl -n studies wait --for=condition=complete"
    assert f"{wait} --timeout=24h job/{job['metadata']['name']}" in told
    assert f"kubectl -n studies patch job/{merge['metadata']['name']} --patch" in told
    assert len(rendered(*ORDER, *STORE)) == 1  # a single worker writes the manifest itself


def test_what_repeating_cannot_mend_is_not_repeated() -> None:
    job, merge = rendered(*ORDER, *STORE, "--shards", 3)
    assert actions(job) == {2: "FailJob", 5: "FailJob"}
    assert actions(merge) == {2: "FailJob", 5: "FailJob"}
    for each in (job, merge):
        assert each["spec"]["podFailurePolicy"]["rules"][-1]["action"] == "Ignore"
        assert each["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_no_word_of_a_user_is_taken_for_a_variable() -> None:
    (job,) = rendered(*ORDER, "--labels", "$(JOB_COMPLETION_INDEX)$$", "-o", "s3://studies/$(X)")
    assert "$(JOB_COMPLETION_INDEX)$$" in words(job, 3)
    assert words(job, 3)[-1] == "s3://studies/$(X)"


def test_labels_of_a_file_go_with_the_job(tmp_path: Path) -> None:
    listed = tmp_path / "labels.txt"
    listed.write_text("benign\nmalignant\n" * 1000)
    settings, job = rendered(*ORDER, *STORE, "--labels", f"@{listed}")
    assert settings["data"] == {"labels.txt": listed.read_text()}
    assert "@/etc/galatea/labels.txt" in words(job)
    pod = job["spec"]["template"]["spec"]
    assert {"name": "labels", "mountPath": "/etc/galatea"} in pod["containers"][0]["volumeMounts"]
    assert pod["volumes"][-1]["configMap"]["name"] == settings["metadata"]["name"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "studies"], 2, "write s3://BUCKET/PREFIX or pvc:CLAIM/FOLDER"),
        (["-o", "s3://studies"], 2, "is no place"),
        (["-o", "pvc:studies"], 2, "is no place"),
        (["-o", "pvc:studies/../x"], 2, "is no place"),
        (["-o", "pvc:Studies/x"], 2, "is no place"),
        ([*STORE, "-n", "0"], 5, "nothing to make"),
        ([*STORE, "-n", "2", "--shards", "3"], 5, "give --shards 2 or less"),
        ([*STORE, "--shard-size", "1000", "--shards", "3"], 5, "3 workers for 2 shards"),
        ([*STORE, "--labels", "@{labels}"], 5, "3 labels for 2000 images"),
        ([*STORE, "--memory", "much"], 5, "has a quantity of memory that is none"),
        ([*STORE, "--image", "client"], 5, "name a release or a digest"),
        ([*CLAIM, "--endpoint", "http://x"], 5, "leave it out with pvc:"),
    ],
)
def test_what_cannot_work_is_refused_with_the_next_step(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("benign\n" * 3)
    told = [word.format(labels=labels) if word == "@{labels}" else word for word in arguments]
    done = galatea("deploy", "job", *ORDER, *told)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "s3://studies/phantom"], "no credentials"),
        ([*CLAIM, "--shards", 2], "must be ReadWriteMany"),
        ([*STORE, "--format", "dicom"], "--build-arg EXTRAS=s3,dicom"),
        ([*STORE, "--format", "png", "-n", 100_000], "choose webdataset"),
        ([*CLAIM, "--format", "png", "-n", 1_000_000], "choose webdataset"),
    ],
)
def test_what_must_be_there_is_told_on_stderr(arguments: list[object], said: str) -> None:
    assert said in galatea("deploy", "job", *ORDER, *arguments).stderr
    assert galatea("deploy", "job", *ORDER, *arguments, "--quiet").stderr == ""
    assert galatea("deploy", "job", *ORDER, *arguments, "--json").stderr == ""


def test_jobs_for_programs_are_the_same_objects() -> None:
    people, programs = (
        galatea("deploy", "job", *ORDER, *STORE, *form) for form in ([], ["--json"])
    )
    assert json.loads(programs.stdout) == [*yaml.safe_load_all(people.stdout)]


def test_the_examples_are_what_their_commands_render() -> None:
    commands = re.findall(
        r"^galatea deploy job ((?:.|\\\n)+?) > k8s/jobs/(.+)$",
        (JOBS / "README.md").read_text("utf-8"), re.MULTILINE,
    )  # fmt: skip
    assert {name for _, name in commands} == {path.name for path in JOBS.glob("*.yaml")}
    for arguments, name in commands:
        done = galatea("deploy", "job", *arguments.replace("\\\n", " ").split())
        assert done.stdout == (JOBS / name).read_text("utf-8"), f"render k8s/jobs/{name} again"


# What the policy for failures relies on: the exit codes of what the Jobs run.


@pytest.fixture
def _served(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of the Jobs are this one."""
    monkeypatch.setenv("GALATEA_URL", server.grpc_url)


def work(job: Any, index: int, place: Path) -> list[str]:
    """What a worker runs, as a process of this machine."""
    arguments = words(job, index)
    arguments[arguments.index("-o") + 1] = str(place)
    return command_line(*arguments)


@pytest.mark.usefixtures("_served")
def test_what_the_jobs_run_makes_what_a_single_process_makes(tmp_path: Path) -> None:
    order = ["phantom", "-n", 200, "--seed", 7, "--shard-size", 16, "--labels", "malignant"]
    job, merge = rendered(*order, *CLAIM, "--shards", 3)
    for k in (2, 0, 1):
        subprocess.run(work(job, k, tmp_path / "parts"), check=True)
    assert words(merge)[:2] == ["dataset", "merge"]
    assert galatea("dataset", "merge", tmp_path / "parts").returncode == 0
    alone = galatea("generate", *order, "-o", tmp_path / "whole")
    assert alone.returncode == 0, alone.stderr
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


@pytest.mark.usefixtures("_served")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_is_ended_leaves_whole_shards_and_another_goes_on(
    tmp_path: Path, by: signal.Signals
) -> None:
    order = ["phantom", "-n", 3000, "--seed", 7, "--shard-size", 20, "--format", "npz"]
    job, _ = rendered(*order, *CLAIM, "--shards", 2)
    shards = tmp_path / "parts" / "shards"
    with subprocess.Popen(
        work(job, 1, tmp_path / "parts"), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        try:
            wait_until(lambda: shards.exists() and len([*shards.glob("0*.json")]) > 2, seconds=60)
            worker.send_signal(by)
            _, said = worker.communicate(timeout=20)
        finally:
            worker.kill()
    if by is signal.SIGTERM:
        assert worker.returncode == 143
        assert said == "terminated\n"
        assert not list((tmp_path / "parts").rglob(".*"))
    assert 128 + by not in actions(job)
    made = len([*shards.glob("0*.json")])
    assert made < 75
    done = subprocess.run(
        [*work(job, 1, tmp_path / "parts"), "--json"], stdout=subprocess.PIPE, check=True
    )
    assert json.loads(done.stdout)["found"] == 20 * made
    subprocess.run(work(job, 0, tmp_path / "parts"), check=True)
    assert galatea("dataset", "merge", tmp_path / "parts").returncode == 0
    alone = galatea("generate", *order, "-o", tmp_path / "whole")
    assert alone.returncode == 0, alone.stderr
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def ended(by: str, handler: str) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal, in a process that began with this handler for it."""
    code = (
        f"import signal as s; s.signal(s.{by}, s.{handler})\n"
        "from galatea.cli._errors import report_errors\n"
        f"with report_errors(as_json=True): s.raise_signal(s.{by})\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("by", "handler", "error", "code"),
    [
        ("SIGTERM", "SIG_DFL", "Terminated", 143),
        ("SIGINT", "default_int_handler", "Interrupted", 130),
    ],
)
def test_an_end_is_told_to_programs_too(by: str, handler: str, error: str, code: int) -> None:
    done = ended(by, handler)
    assert done.returncode == code
    told = json.loads(done.stderr)
    assert (told["error"], told["exit_code"]) == (error, code)


@pytest.mark.parametrize("by", ["SIGTERM", "SIGINT"])
def test_an_end_that_the_parent_has_ignored_stays_ignored(by: str) -> None:
    done = ended(by, "SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("_served")
@pytest.mark.parametrize(
    ("change", "code", "action"),
    [
        (["--format", "jpeg"], 2, "FailJob"),
        (["--labels", "vague"], 5, "FailJob"),
        (["--seed", 8], 5, "FailJob"),
        (["--url", "127.0.0.1:1", "--patience", 0.2], 3, None),
    ],
)
def test_the_exit_code_tells_whether_repeating_can_help(
    tmp_path: Path, change: list[object], code: int, action: str | None
) -> None:
    job, _ = rendered("phantom", "-n", 200, "--seed", 7, "--shard-size", 50, *CLAIM, "--shards", 2)
    first = subprocess.run(work(job, 0, tmp_path / "x"), check=False, capture_output=True)
    assert first.returncode == 0
    before = files(tmp_path / "x")
    other = [*work(job, 0, tmp_path / "x"), *map(str, change)]
    done = subprocess.run(other, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert actions(job).get(code) == action
    assert files(tmp_path / "x") == before


@pytest.mark.usefixtures("_served")
def test_a_model_that_is_not_served_may_come_back(tmp_path: Path) -> None:
    job, _ = rendered("phantoms", "-n", 200, "--seed", 7, *CLAIM, "--shards", 2)
    done = subprocess.run(work(job, 0, tmp_path / "x"), check=False, capture_output=True, text=True)
    assert done.returncode == 4
    assert "did you mean 'phantom'?" in done.stderr
    assert 4 not in actions(job)
