"""The Grafana dashboard queries all metrics that /metrics exposes, and only labels that these metrics have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tools import record_page

DASHBOARD = Path(__file__).parents[2] / "docs/grafana/edgekit.json"
# Labels that Prometheus adds.
OF_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The labels of each exposed sample, by name, from a run in which every counted event occurred."""
    families = text_string_to_metric_families(record_page.every_metric())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_each_metric_is_exposed_and_each_exposed_one_is_shown(dashboard, exposed):
    variables = [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    used = set(re.findall(r"edgekit_\w+", " ".join(expressions(dashboard) + variables)))
    assert used == set(exposed)


def test_each_label_is_one_of_its_metric(dashboard, exposed):
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            metrics = re.findall(r"edgekit_\w+", target["expr"])
            labels = OF_PROMETHEUS | set.intersection(*(exposed[metric] for metric in metrics))
            queried = re.findall(r"(\w+)=~", target["expr"]) + re.findall(r"{{(\w+)}}", target["legendFormat"])
            for grouped in re.findall(r"by \(([^)]*)\)", target["expr"]):
                queried += grouped.split(", ")
            assert set(queried) <= labels, panel["title"]


def test_counters_are_rates_and_gauges_are_not(dashboard):
    for expression in expressions(dashboard):
        for function, metric in re.findall(r"(\w+\()?(edgekit_\w+)", expression):
            is_counter = metric.endswith(("_total", "_sum", "_count"))
            assert (function in ("rate(", "increase(")) == is_counter, expression
