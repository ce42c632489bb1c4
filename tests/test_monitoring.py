"""Rules, alerts, autoscalers and dashboard say what they should of what a real server reports."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

import promql
from galatea import Client
from galatea_server.server import EmbeddedServer
from promql import COMPONENTS, promtool, write_yaml
from support import ROOT

UNIT_TESTS = ROOT / "tests" / "promtool"
OBSERVABILITY = ROOT / "docs" / "observability.md"
REQUESTS = 24

# What we read and the embedded server does not report, and who does.
ELSEWHERE = {
    "up": "Prometheus",
    "nv_gpu_utilization": "Triton, where there is a GPU",
    "nv_gpu_memory_used_bytes": "Triton, where there is a GPU",
    "nv_gpu_memory_total_bytes": "Triton, where there is a GPU",
    "nv_gpu_power_usage": "Triton, where there is a GPU",
    "container_memory_working_set_bytes": "cAdvisor, in every kubelet",
    "kube_deployment_spec_replicas": "kube-state-metrics",
    "kube_deployment_status_replicas_available": "kube-state-metrics",
    "kube_horizontalpodautoscaler_status_desired_replicas": "kube-state-metrics",
    "kube_job_complete": "kube-state-metrics",
    "kube_job_failed": "kube-state-metrics",
    "kube_job_info": "kube-state-metrics",
    "kube_pod_container_resource_limits": "kube-state-metrics",
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
}
# Of decoupled models alone, which no repository of ours has; the documentation says so.
ABSENT = {"nv_inference_first_response_histogram_ms"}


def scrape(server: EmbeddedServer) -> dict[str, float]:
    """Series of a running server with their values."""
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {series: float(value) for series, value in samples}


@pytest.fixture(scope="module")
def scrapes(phantom_repository: Path) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """A real server's metrics before and after requests of several callers."""
    with EmbeddedServer(phantom_repository) as server:
        before = scrape(server)
        with Client(server.grpc_url) as client, ThreadPoolExecutor(6) as callers:
            seeds = range(REQUESTS)
            for done in [callers.submit(client.sample, "phantom", 32, seed=s) for s in seeds]:
                done.result()
        yield before, scrape(server)


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """A folder with our rules and queries as files of rules, and the unit tests."""
    shutil.copytree(UNIT_TESTS, tmp_path, dirs_exist_ok=True)
    write_yaml(tmp_path / "rules.yaml", {"groups": promql.rules()})
    queries = {"adapter": promql.adapter_query(), **promql.keda_queries()}
    write_yaml(tmp_path / "scaling.yaml.rules", promql.as_rules(queries))
    return tmp_path


def test_prometheus_takes_our_rules(checked: Path) -> None:
    assert f"{len(promql.each_rule())} rules found" in promtool(
        "check", "rules", "rules.yaml", folder=checked
    )


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = {f"panel{number}": query for number, query in enumerate(promql.panel_queries())}
    write_yaml(tmp_path / "panels.yaml", promql.as_rules(queries))
    said = promtool("check", "rules", "panels.yaml", folder=tmp_path)
    assert f"{len(queries)} rules found" in said


@pytest.mark.parametrize("name", sorted(path.name for path in UNIT_TESTS.glob("*.yaml")))
def test_rules_and_queries_give_what_their_unit_tests_say(name: str, checked: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", name, folder=checked)


def unit_tested_alerts() -> dict[str, list[set[str]]]:
    """For each alert that is unit-tested the labels of what fired, at each time looked at."""
    tests = yaml.safe_load((UNIT_TESTS / "alerts.yaml").read_text())["tests"]
    found: dict[str, list[set[str]]] = {}
    for case in (case for test in tests for case in test["promql_expr_test"]):
        name = re.findall(r'alertname="(\w+)"', case["expr"])[0]
        fired = " ".join(sample["labels"] for sample in case["exp_samples"])
        found.setdefault(name, []).append(set(re.findall(r'(\w+)="', fired)))
    return found


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    found = unit_tested_alerts()
    assert sorted(found) == sorted(alert["alert"] for alert in promql.alerts())
    for name, fired in found.items():
        assert any(fired), name
        assert not all(fired), name


def test_every_recording_rule_is_unit_tested() -> None:
    text = (UNIT_TESTS / "rates.yaml").read_text()
    recorded = [rule["record"] for rule in promql.each_rule() if "record" in rule]
    assert recorded
    assert [name for name in recorded if f"{name}{{" not in text] == []


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    headings = re.findall(r"^#+ (.+)$", OBSERVABILITY.read_text(), re.MULTILINE)
    labels = {name: set().union(*fired) for name, fired in unit_tested_alerts().items()}
    for alert in promql.alerts():
        name, said = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert said["summary"]
        assert said["description"].endswith(".")
        assert name in headings, f"docs/observability.md says nothing of {name}"
        assert said["runbook_url"] == f"docs/observability.md#{name.lower()}"
        used = set(re.findall(r"\$labels\.(\w+)", f"{said['summary']} {said['description']}"))
        assert used <= labels[name], f"{name} speaks of labels that it does not have"


def test_every_metric_that_we_read_is_one_that_the_server_reports(
    scrapes: tuple[dict[str, float], dict[str, float]],
) -> None:
    reported = {series.split("{")[0] for series in scrapes[1]}
    recorded = {rule["record"] for rule in promql.each_rule() if "record" in rule}
    read = set().union(*map(promql.metrics, promql.expressions()))
    assert "nv_inference_queue_duration_us" in read
    assert read - reported - recorded - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) <= read, "nobody reads it any more"
    assert not set(ELSEWHERE) & reported, "the server reports it by now"


def test_every_metric_in_the_documentation_exists(
    scrapes: tuple[dict[str, float], dict[str, float]],
) -> None:
    reported = {series.split("{")[0] for series in scrapes[1]}
    recorded = {rule["record"] for rule in promql.each_rule() if "record" in rule}
    own = [COMPONENTS / name / "README.md" for name in ("autoscaling", "keda", "monitoring")]
    for page in (OBSERVABILITY, *own):
        named = set(re.findall(r"\b(?:nv|kube)_[a-z_]*[a-z]\b|galatea:[\w:]+", page.read_text()))
        assert named - reported - recorded - set(ELSEWHERE) - ABSENT == set(), page.name
    assert not ABSENT & reported


def test_the_queue_time_per_request_is_that_of_the_requests_that_were_sent(
    scrapes: tuple[dict[str, float], dict[str, float]], checked: Path
) -> None:
    before, after = scrapes
    queue = "nv_inference_queue_duration_us{"
    waited = sum(after[name] - before[name] for name in after if name.startswith(queue)) / 1e6
    assert waited > 0
    pod = 'job="galatea",namespace="a",pod="one",'
    case = {
        "interval": "15s",
        "input_series": [
            {"series": name.replace("{", "{" + pod), "values": f"{before[name]}x1 {value}x2"}
            for name, value in after.items()
            if name.startswith((queue, "nv_inference_request_success{"))
        ],
        "promql_expr_test": [
            {
                "expr": f"abs(galatea:queue_seconds_per_request:rate1m"
                f" / {waited / REQUESTS} - 1) < bool 1e-6",
                "eval_time": "1m",
                "exp_samples": [{"labels": '{namespace="a",pod="one"}', "value": 1}],
            }
        ],
    }
    unit = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [case]}
    write_yaml(checked / "real.yaml", unit)
    assert "SUCCESS" in promtool("test", "rules", "real.yaml", folder=checked)


def test_autoscalers_have_one_metric_one_target_and_one_pace() -> None:
    autoscaler = promql.document("autoscaling/horizontal-pod-autoscaler.yaml")["spec"]
    [metric] = autoscaler["metrics"]
    adapted = promql.adapter_rule()
    assert metric["pods"]["metric"]["name"] == adapted["name"]["as"]
    recorded = {rule.get("record") for rule in promql.each_rule()}
    assert adapted["seriesQuery"].split("{")[0] in recorded
    scaled = promql.document("keda/scaled-object.yaml")["spec"]
    assert adapted["seriesQuery"].split("{")[0] in promql.keda_queries()["queue"]
    target = metric["pods"]["target"]["averageValue"]
    assert float(target.removesuffix("m")) / 1000 == float(
        scaled["triggers"][0]["metadata"]["threshold"]
    )
    pace = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert pace == autoscaler["behavior"]
    assert scaled["scaleTargetRef"] == autoscaler["scaleTargetRef"]


def test_the_dashboard_is_whole() -> None:
    text = (COMPONENTS / "monitoring" / "galatea.json").read_text()
    board = promql.dashboard()
    assert text == json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"datasource", "namespace", "model"}
    for panel in promql.panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "$datasource"
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0
        used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for t in panel["targets"])))
        assert used <= variables | {"__rate_interval"}


def test_no_panel_of_the_dashboard_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in promql.dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
