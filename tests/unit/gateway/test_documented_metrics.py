"""docs/monitoring.md has every metric of the gateway, and no others."""

import re
from collections.abc import Callable
from pathlib import Path

from prometheus_client import disable_created_metrics
from prometheus_client.parser import text_string_to_metric_families

from reranker_gateway.gateway import Gateway

_DOCS = Path(__file__).resolve().parents[3] / "docs/monitoring.md"


def test_each_metric_is_documented(gateway_of: Callable[..., Gateway]) -> None:
    # As the program does, whichever test ran before.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    text = _DOCS.read_text(encoding="utf-8")
    section = text.split("\n## Metrics of the pods that serve\n")[1].split("\n## ")[0]
    gateway = gateway_of(shadow_url="http://preview:8000", shadow_identity="1", revision="old")
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(gateway.telemetry.exposition())
    }
    documented = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    assert documented == {name for name in exported if name.startswith("reranker_")}
