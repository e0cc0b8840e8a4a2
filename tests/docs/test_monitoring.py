"""The dashboard and the alert rules of docs/monitoring name only metrics and labels that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("prometheus_client")

import yaml

from jobqueue.model.states import JobState
from jobqueue.observe.metrics import COUNTERS, TIMES
from jobqueue.observe.prometheus import GAUGES
from tests.docs.doc_pages import DOCS, code, rows, section

MONITORING = DOCS / "monitoring"
METRICS = {metric.name: set(metric.labels) for metric in (*COUNTERS, *TIMES, *GAUGES)}
SERIES = METRICS | {f"{time.name}_bucket": {*time.labels, "le"} for time in TIMES}
STATES = {*(state.value for state in JobState), "open"}

_SELECTOR = re.compile(r"\b(jobqueue_\w+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return group["rules"]


def panels() -> list[dict[str, Any]]:
    return json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]


def check(expression: str) -> None:
    found = _SELECTOR.findall(expression)
    assert found, expression
    labels: set[str] = set()
    for name, selector in found:
        assert name in SERIES, f"{name} in {expression!r}"
        labels |= SERIES[name]
        for label, value in re.findall(r'(\w+)!?=~?"([^"]*)"', selector):
            assert label in SERIES[name], f"{label} of {name}"
            assert label != "state" or value in STATES, value
    for names in _BY.findall(expression):
        assert set(names.split(", ")) <= labels, expression
    assert expression.count("(") == expression.count(")")


def test_every_alert_is_whole_and_names_what_there_is() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 5
    for rule in rules():
        check(rule["expr"])
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            assert f"({label})" in rule["expr"], f"{rule['alert']}: {label} is not in its result"


def test_every_panel_of_the_dashboard_names_what_there_is() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    shown: set[str] = set()
    for panel in panels():
        for target in panel["targets"]:
            check(target["expr"])
            shown |= {name for name, _ in _SELECTOR.findall(target["expr"])}
    assert shown == {f"{name}_bucket" if name in {each.name for each in TIMES} else name for name in METRICS}


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_guide_lists_every_metric_with_its_labels() -> None:
    listed = {
        name: set(code(labels))
        for name, labels, _ in rows(section(DOCS / "guides" / "observability.md", "Prometheus"))
        for name in code(name)
    }
    assert listed == METRICS
