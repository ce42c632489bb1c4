"""``galatea deploy job``: a data set made by many workers on a cluster."""

from __future__ import annotations

import math
import re
import secrets
from copy import copy
from importlib.metadata import version
from pathlib import PurePosixPath

import click

from galatea import datasets
from galatea.cli._complete import complete_model
from galatea.cli._output import emit, output_options, say, wants_json
from galatea.cli.generate import Labels, generate
from galatea.errors import InvalidInput
from galatea.extras import needs_extra
from galatea_server.deploy.bulk import DATA, DataSet, Destination, Workers, jobs

URL = "dns:///galatea-grpc:8001"  # every ready server of the namespace
MEMORY = "512Mi"  # two shards of 16 MiB, as pixels and as files, and 64 MiB of answers under way
PATIENCE = 300.0  # seconds in which most nodes are replaced, and rollouts without a spare GPU end
MOST_LABELS = 200_000  # bytes; `kubectl apply` takes 256 KiB of an object
# Images with a mask each, of which the list of files takes 256 MB of a worker: 0.15 kB a file in a
# folder, 1.5 kB in an object store.
MANY_IN_CLAIM, MANY_IN_STORE = 800_000, 80_000
IN_THE_IMAGE = ("", "s3")  # extras that galatea-client has unless it is built with others
SEVERAL = ("png", "dicom", "nifti")  # formats with a file for each image
OF_GENERATE = ("n", "seed", "labels", "settings", "form", "shard_size")


class Place(click.ParamType[Destination]):
    """``s3://BUCKET/PREFIX`` or ``pvc:CLAIM/FOLDER``."""

    name = "place"

    def convert(
        self, value: str | Destination, param: click.Parameter | None, ctx: click.Context | None
    ) -> Destination:
        """The place that the text means."""
        if isinstance(value, Destination):
            return value
        if re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+/[^/].*", value):
            return Destination(value.rstrip("/"))
        claim = re.fullmatch(r"pvc:([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)/(.+)", value)
        folder = PurePosixPath(claim[2] if claim else "")
        if claim is None or folder.is_absolute() or not folder.parts or ".." in folder.parts:
            self.fail(
                f"{value!r} is no place: write s3://BUCKET/PREFIX or pvc:CLAIM/FOLDER", param, ctx
            )
        return Destination(f"{DATA}/{folder}", claim[1])


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option(
    "--shards", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="K",
    help="Workers that share it, each making a part.",
)  # fmt: skip
@click.option(
    "-o", "--output", "destination", type=Place(), required=True, metavar="URL|pvc:CLAIM/FOLDER",
    help="s3://BUCKET/PREFIX, or a folder in a claim of the namespace.",
)  # fmt: skip
@click.option(
    "--parallelism", type=click.IntRange(1), help="Workers at the same time; default all of them."
)
@click.option("--image", help="Image of the workers; default galatea-client:VERSION.")
@click.option(
    "--url", "urls", multiple=True, default=[URL], show_default=True,
    help="host:port of a server's gRPC port, as the workers reach it; again for further servers.",
)  # fmt: skip
@click.option("--namespace", default="", help="Namespace of the Jobs.")
@click.option(
    "--secret", "keys", multiple=True, metavar="NAME",
    help="Secret whose keys become variables of the workers, as AWS_ACCESS_KEY_ID; or several.",
)  # fmt: skip
@click.option("--endpoint", default="", metavar="URL", help="Of an object store other than AWS's.")
@click.option("--service-account", default="", metavar="NAME", help="Of the workers.")
@click.option("--priority-class", default="", metavar="NAME", help="Of the workers.")
@click.option("--memory", default=MEMORY, show_default=True, help="Of a worker.")
@click.option(
    "--patience", "waiting", type=click.FloatRange(0), default=PATIENCE, show_default=True,
    help="Seconds that a worker waits for servers that have gone away, before it fails.",
)  # fmt: skip
@click.option(
    "--retries", type=click.IntRange(0), default=6, show_default=True,
    help="Of each part, after 10 s, 20 s, 40 s and so on.",
)  # fmt: skip
@click.option(
    "--max-failed", type=click.IntRange(0), metavar="PARTS",
    help="Stop all workers when more parts than this have failed; default: the others go on.",
)  # fmt: skip
@click.option(
    "--deadline", type=click.IntRange(1), metavar="SECONDS", help="For all parts; default none."
)
@output_options
def job(
    name: str,
    n: int,
    seed: int | None,
    labels: Labels | None,
    settings: dict[str, float],
    form: str,
    shard_size: int | None,
    shards: int,
    destination: Destination,
    parallelism: int | None,
    image: str | None,
    urls: tuple[str, ...],
    namespace: str,
    keys: tuple[str, ...],
    endpoint: str,
    service_account: str,
    priority_class: str,
    memory: str,
    waiting: float,
    retries: int,
    max_failed: int | None,
    deadline: int | None,
) -> None:
    """Render Jobs that make a data set of N images of the generator NAME.

    An Indexed Job runs galatea generate, a worker for each part. Kubernetes replaces workers that
    fail; a new one goes on where the last one stopped. With several parts a second Job joins them,
    which is suspended: what to run when the first one is complete is told on stderr.
    """
    with needs_extra("deploy"):
        from galatea_server.deploy.manifests import dump
        from galatea_server.deploy.rules import check as check_rules

    _check(n, labels, shards, shard_size)
    if endpoint and destination.claim:
        raise InvalidInput("--endpoint is of an object store", "leave it out with pvc:")
    drawn = seed is None
    if seed is None:
        seed = secrets.randbits(32)  # all workers need the same one
    listed, plan = _plan(labels, settings, form, shard_size)
    data = DataSet(name, n, seed, plan, listed, destination)
    workers = Workers(
        shards=shards, parallelism=min(parallelism or shards, shards),
        image=image or f"galatea-client:{version('galatea')}", urls=urls, patience=waiting,
        memory=memory, retries=retries,
        failed=None if max_failed is None else min(max_failed, shards), deadline=deadline,
        secrets=keys, endpoint=endpoint, service_account=service_account,
        priority_class=priority_class, namespace=namespace,
    )  # fmt: skip
    manifests = jobs(data, workers)
    for fault in check_rules(manifests):
        raise InvalidInput(f"{fault.object}: {fault.field} {fault.problem}", fault.remedy)
    emit(manifests, lambda: click.echo(dump(manifests), nl=False))
    if not wants_json():
        _hint(data, workers, drawn, form, shard_size)


# What decides the data set is asked for as galatea generate does it; variables that set an option
# there are not meant here.
job.params[1:1] = [copy(option) for option in generate.params if option.name in OF_GENERATE]
for option in job.params:
    if isinstance(option, click.Option) and option.name in OF_GENERATE:
        option.envvar = None


def _check(n: int, labels: Labels | None, shards: int, shard_size: int | None) -> None:
    """Refuses what galatea generate would refuse on the cluster."""
    if n < 1 or (shard_size is not None and shard_size < 1):
        raise InvalidInput("there is nothing to make", "give counts of 1 or more")
    if isinstance(labels, list) and len(labels) != n:
        raise InvalidInput(f"{len(labels)} labels for {n} images", "give one for each image")
    if isinstance(labels, list) and len("\n".join(labels).encode()) > MOST_LABELS:
        raise InvalidInput(
            f"the labels have more than {MOST_LABELS:,} bytes, which Kubernetes cannot hold",
            "give weights (CLASS=WEIGHT,…), or classes by their numbers",
        )
    most = math.ceil(n / (shard_size or 1))
    if shards > most:
        raise InvalidInput(
            f"{shards} workers for {most} {'shards' if shard_size else 'images'}",
            f"give --shards {most} or less",
        )


def _plan(
    labels: Labels | None, settings: dict[str, float], form: str, shard_size: int | None
) -> tuple[list[str], list[str]]:
    """Labels of a file, and the other arguments of galatea generate."""
    plan = []
    if isinstance(labels, dict):
        plan += ["--labels", ",".join(f"{label}={weight}" for label, weight in labels.items())]
    elif isinstance(labels, str):
        plan += ["--labels", labels]
    for key, value in settings.items():
        plan += ["--set", f"{key}={value}"]
    plan += ["--format", form]
    if shard_size is not None:
        plan += ["--shard-size", str(shard_size)]
    return labels if isinstance(labels, list) else [], plan


def _hint(data: DataSet, workers: Workers, drawn: bool, form: str, shard_size: int | None) -> None:
    """Says on stderr what to run next, and what is needed for it."""
    kubectl = f"kubectl -n {workers.namespace}" if workers.namespace else "kubectl"
    if drawn:
        say(f"--seed {data.seed} was drawn; with it the same Jobs are rendered again")
    if data.destination.claim and workers.parallelism > 1:
        say(
            f"PersistentVolumeClaim/{data.destination.claim}: it must be ReadWriteMany for workers "
            "on several nodes"
        )
    if not (data.destination.claim or workers.secrets or workers.service_account):
        say("no credentials for the store: give --secret, or --service-account where it has them")
    extra = datasets.FORMATS[form].extra
    if extra not in IN_THE_IMAGE:
        say(f"{form}: the image must be built with --build-arg EXTRAS=s3,{extra}")
    many = MANY_IN_CLAIM if data.destination.claim else MANY_IN_STORE
    if form in SEVERAL and data.n > many:
        say(f"{form}: workers list a file for each image; choose webdataset, or give more --memory")
    if shard_size is not None:
        say("--shard-size: a worker holds two shards; give more --memory where they are large")
    say(
        "when it is applied, wait:\n"
        f"  {kubectl} wait --for=condition=complete --timeout=24h job/{data.name}"
    )
    if workers.shards > 1:
        say(
            "then join the parts:\n"
            f'  {kubectl} patch job/{data.name}-merge --patch \'{{"spec":{{"suspend":false}}}}\'\n'
            f"  {kubectl} wait --for=condition=complete --timeout=1h job/{data.name}-merge"
        )
    say(
        "after a failure, before it is applied again; what is made stays:\n"
        f"  {kubectl} delete job -l app.kubernetes.io/instance={data.name}"
    )
