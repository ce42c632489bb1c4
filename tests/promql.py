"""Expressions of rules, autoscalers and dashboard, and what promtool says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import ROOT

COMPONENTS = ROOT / "k8s" / "components"
WORDS = {"and", "bool", "by", "ignoring", "offset", "on", "or", "unless", "without"}


def document(path: str) -> Any:
    return yaml.safe_load((COMPONENTS / path).read_text())


def dashboard() -> Any:
    return json.loads((COMPONENTS / "monitoring" / "galatea.json").read_text())


def rules() -> list[dict[str, Any]]:
    """Groups of rules as Prometheus reads them from a file."""
    groups: list[dict[str, Any]] = document("monitoring/rules.yaml")["spec"]["groups"]
    return groups


def each_rule() -> list[dict[str, Any]]:
    return [rule for group in rules() for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in each_rule() if "alert" in rule]


def adapter_rule() -> dict[str, Any]:
    values = document("autoscaling/prometheus-adapter-values.yaml")
    [rule] = values["rules"]["custom"]
    return dict(rule)


def adapter_query(namespace: str = "galatea") -> str:
    """What the adapter asks Prometheus for the pods of a namespace."""
    rule = adapter_rule()
    query: str = rule["metricsQuery"]
    for placeholder, value in {
        "<<.Series>>": rule["seriesQuery"].split("{")[0],
        "<<.LabelMatchers>>": f'namespace="{namespace}",pod=~"hot|idle"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(placeholder, value)
    return query


def keda_queries() -> dict[str, str]:
    triggers = document("keda/scaled-object.yaml")["spec"]["triggers"]
    return {trigger["name"].replace("-", "_"): trigger["metadata"]["query"] for trigger in triggers}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> list[str]:
    """The dashboard's queries with its variables filled in."""
    values = {"$__rate_interval": "1m", "$namespace": "galatea", "$model": "[^.]+"}
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in values.items():
        queries = [query.replace(variable, value) for query in queries]
    return queries


def expressions() -> Iterator[str]:
    """Every expression that we ship."""
    yield from (rule["expr"] for rule in each_rule())
    yield from panel_queries()
    yield from keda_queries().values()
    yield adapter_query()


def metrics(expression: str) -> set[str]:
    """Names of the series that an expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", re.sub(r'"[^"]*"', '""', expression))
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w:.])[A-Za-z_:][\w:]*(?![\w:]*\s*\()", bare)
    return set(names) - WORDS


def as_rules(queries: dict[str, str]) -> dict[str, Any]:
    """A file of rules that record queries, which makes promtool read and evaluate them."""
    recorded = [{"record": f"scaling:{name}", "expr": query} for name, query in queries.items()]
    return {"groups": [{"name": "queries", "rules": recorded}]}


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def promtool(*arguments: str | Path, folder: Path) -> str:
    """Output of promtool; the test fails with it where promtool finds a fault."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: it comes with Prometheus (Debian: apt-get install prometheus)")
    command = [found, *map(str, arguments)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr
