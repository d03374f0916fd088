"""Metrics, rules, dashboard and docs/monitoring.md speak of the same things."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from reranker_operator.runtime.collectors import (
    FleetCollector,
    LoadCollector,
    ReplicaCollector,
    StreamCollector,
)
from reranker_operator.runtime.fleet import Fleet
from reranker_operator.runtime.health import Health
from reranker_operator.runtime.lag import LoopLag
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.metrics import Metrics
from reranker_operator.runtime.queue import WorkQueue
from reranker_operator.runtime.resync import Resync
from reranker_operator.runtime.streams import Streams

_ROOT = Path(__file__).resolve().parents[3]
_CHART = _ROOT / "charts/reranker-operator"
_DOCS = (_ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
_RULES = yaml.safe_load((_CHART / "rules/reranker-operator.yaml").read_text(encoding="utf-8"))
_BOARD = json.loads((_CHART / "dashboards/reranker-operator.json").read_text(encoding="utf-8"))
_METRIC = re.compile(r"(?<![\w:])reranker_[a-z0-9_]+(?![\w:])")
_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


def _rows(heading: str) -> set[str]:
    """What stands in the first column of the tables below a heading."""
    section = _DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))


def _exported() -> Iterator[str]:
    """Families of a replica as samples name them, but for the suffixes of histograms."""
    metrics, fleet, queue = Metrics(), Fleet(), WorkQueue(clock=lambda: 0.0)
    cluster: Any = SimpleNamespace()
    resync = Resync(cluster, queue, fleet, (), seconds=600, clock=lambda: 0.0)
    health = Health(queue, resync, LoopLag(lambda: 0.0), clock=lambda: 0.0, lease_seconds=15)
    registry: CollectorRegistry = metrics.registry
    registry.register(ReplicaCollector(health))
    registry.register(FleetCollector(fleet, health))
    paces: Any = {}
    loads = Loads(cluster, queue.add, metrics, paces=paces, at_once=1, clock=lambda: 0.0)
    registry.register(LoadCollector(loads))
    registry.register(StreamCollector(Streams()))
    for family in registry.collect():
        yield f"{family.name}_total" if family.type == "counter" else family.name


def _expressions() -> Iterator[str]:
    for group in _RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in _BOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_each_metric_of_the_operator_is_documented() -> None:
    own = {name for name in _exported() if name.startswith("reranker_")}
    assert _rows("Metrics of the operator") == own


def test_rules_and_panels_ask_for_metrics_that_exist() -> None:
    known = _rows("Metrics of the operator") | _rows("Metrics of the pods that serve")
    for expression in _expressions():
        asked = set(_METRIC.findall(expression))
        assert {name for name in asked if _OF_HISTOGRAMS.sub("", name) not in known} == set()


def test_each_alert_has_an_entry_and_points_to_it() -> None:
    rules = [rule for group in _RULES["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert re.findall(r"^### (\S+)$", _DOCS, re.MULTILINE) == list(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{name.lower()}"
        entry = _DOCS.split(f"\n### {name}\n")[1]
        minutes = rule.get("for", "").removesuffix("m")
        wait = f", after {minutes} minute{'s' * (minutes != '1')}" if minutes else ""
        assert entry.startswith(f"*{rule['labels']['severity']}{wait}.*")
    assert _rows("Recorded") == {rule["record"] for rule in rules if "record" in rule}
