"""Writes the Grafana dashboard: `generate.py FILE`. The chart carries what it writes.

The queries are those of a Prometheus that scrapes the operator and the gateways as the chart's
ServiceMonitors have it; docs/monitoring.md tells which labels are needed otherwise.
"""

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from panels import SOURCE, Column, Query, graph, grid, number

_OBJECTS = 'namespace=~"$namespace", name=~"$service"'
_ENGINES = 'namespace=~"$namespace"'
_PODS = 'namespace=~"$namespace", service=~"$service"'


def _rate(metric: str, matchers: str = "") -> str:
    return f"rate({metric}{f'{{{matchers}}}' if matchers else ''}[$__rate_interval])"


def _quantile(q: float, metric: str, by: str, matchers: str = "") -> str:
    rate = _rate(f"{metric}_bucket", matchers)
    return f"histogram_quantile({q}, sum by (le, {by}) ({rate}))"


def _by(metric: str, by: str, matchers: str = "") -> str:
    return f"sum by ({by}) ({_rate(metric, matchers)})"


def _object(metric: str, matchers: str, by: str = "namespace, name") -> str:
    """Whichever replica leads tells of it."""
    return f"max by ({by}) (reranker_operator_{metric}{{{matchers}}})"


def _engines(matchers: str = "") -> str:
    matchers = f"{_ENGINES}, {matchers}" if matchers else _ENGINES
    return _object("engine_state", matchers, "namespace, name, state, reason")


def _fleet() -> list[Any]:
    ready = _object("service_ready", _OBJECTS)
    stages = _object("engine_stage_seconds", _ENGINES, "namespace, name, stage")
    leading = "sum(reranker_operator_leader)"
    failing = _engines('state=~"Failing|Failed"')
    return [
        number("Services ready", f"sum({ready})"),
        number("Services not ready", f"count({ready} == 0)", (1, "red")),
        number("Engines ready", f"""count({_engines('state="Ready"')})"""),
        number("Engines building", f"""count({_engines('state="Building"')})""", (1, "blue")),
        number("Engines failing", f"count({failing})", (1, "red")),
        number("Replicas leading", leading, (1, "green"), (2, "red"), base="red"),
        grid(
            "Services",
            [
                Column(_object("service_stage", _OBJECTS, "namespace, name, stage")),
                Column(ready, "ready"),
                Column(_object("service_ready_replicas", _OBJECTS), "ready pods"),
                Column(_object("service_replicas", _OBJECTS), "wanted pods"),
            ],
            ["namespace", "name", "stage"],
        ),
        grid(
            "Engines",
            [
                Column(_engines()),
                Column(f"sum by (namespace, name) ({stages})", "build", "s"),
                Column(_object("engine_size_bytes", _ENGINES), "size", "bytes"),
                Column(_object("engine_failed_attempts", _ENGINES), "failed attempts"),
            ],
            ["namespace", "name", "state", "reason"],
        ),
    ]


def _reconcile() -> list[Any]:
    seconds = "reranker_operator_reconcile_duration_seconds"
    return [
        graph("Reconciles", "ops", Query(_by(f"{seconds}_count", "kind, outcome"),
                                         "{{kind}} {{outcome}}")),
        graph(
            "Reconcile duration", "s",
            Query(_quantile(0.5, seconds, "kind"), "p50 {{kind}}"),
            Query(_quantile(0.99, seconds, "kind"), "p99 {{kind}}"),
        ),
        graph(
            "Errors by reason", "ops",
            Query(_by("reranker_operator_reconcile_errors_total", "reason") + " > 0", "{{reason}}"),
        ),
        graph(
            "Queue", "none",
            Query("max(reranker_operator_queue_depth)", "waiting"),
            Query("max(reranker_operator_queue_working)", "working"),
            Query("max(reranker_operator_queue_delayed)", "due later"),
        ),
        graph(
            "Queue: adds and retries", "ops",
            Query(f"sum({_rate('reranker_operator_queue_adds_total')})", "adds"),
            Query(f"sum({_rate('reranker_operator_queue_retries_total')})", "retries"),
        ),
        graph(
            "How late everything is", "s",
            Query("max(reranker_operator_queue_oldest_age_seconds)", "oldest key"),
            Query("max(reranker_operator_queue_longest_work_seconds)", "longest work"),
            Query("max(reranker_operator_event_loop_lag_seconds)", "event loop"),
            Query("time() - max(reranker_operator_resync_last_finished_timestamp_seconds)",
                  "last resync"),
        ),
        graph("API requests", "reqps",
              Query(_by("reranker_operator_api_requests_total", "verb, status"),
                    "{{verb}} {{status}}")),
        graph("API request duration, p99", "s",
              Query(_quantile(0.99, "reranker_operator_api_request_duration_seconds", "verb"),
                    "{{verb}}")),
        graph("Writes", "ops", Query(_by("reranker_operator_writes_total", "action, kind"),
                                     "{{action}} {{kind}}")),
    ]  # fmt: skip


def _serving() -> list[Any]:
    seconds, by = "reranker_request_duration_seconds", "namespace, service"
    legend = "{{namespace}}/{{service}}"
    return [
        graph("Requests", "reqps",
              Query(_by("reranker_requests_total", f"{by}, code", _PODS), f"{legend} {{{{code}}}}"),
              stacked=True),
        graph(
            "Request duration", "s",
            Query(_quantile(0.5, seconds, by, _PODS), f"p50 {legend}"),
            Query(_quantile(0.99, seconds, by, _PODS), f"p99 {legend}"),
        ),
        graph("Stages, p99", "s",
              Query(_quantile(0.99, "reranker_stage_duration_seconds", "stage", _PODS),
                    "{{stage}}"),
              text="tokenise and queue: per request; infer: per batch"),
        graph("Waiting tokens", "none",
              Query(f"sum by ({by}) (reranker_queue_tokens{{{_PODS}}})", legend)),
        graph("Backlog of the fullest pod", "s",
              Query(f"max by ({by}) (reranker_backlog_seconds{{{_PODS}}})", legend)),
        graph("Tokens scored", "none",
              Query(_by("reranker_tokens_total", by, _PODS), legend), text="per second"),
        graph(
            "Padding", "percentunit",
            Query(f"{_by('reranker_padded_tokens_total', by, _PODS)} / "
                  f"{_by('reranker_tokens_total', by, _PODS)} - 1", legend),
            text="Tokens that only fill up batches, for each real one.",
        ),
        graph(
            "Pairs in a batch", "none",
            Query(f"{_by('reranker_batch_rows_sum', by, _PODS)} / "
                  f"{_by('reranker_batch_rows_count', by, _PODS)}", f"mean {legend}"),
            Query(_quantile(0.95, "reranker_batch_rows", by, _PODS), f"p95 {legend}"),
        ),
        graph(
            "Failures and cut passages", "ops",
            Query(_by("reranker_batch_failures_total", by, _PODS), f"batches {legend}"),
            Query(_by("nv_inference_request_failure", by, _PODS), f"Triton {legend}"),
            Query(_by("reranker_truncated_passages_total", by, _PODS), f"cut passages {legend}"),
        ),
        *_triton(by, legend),
    ]  # fmt: skip


def _triton(by: str, legend: str) -> list[Any]:
    return [
        graph("Triton: calls", "ops", Query(_by("nv_inference_exec_count", by, _PODS), legend)),
        graph(
            "Triton: time of a call", "µs",
            Query(f"{_by('nv_inference_compute_infer_duration_us', by, _PODS)} / "
                  f"{_by('nv_inference_exec_count', by, _PODS)}", f"compute {legend}"),
            Query(f"{_by('nv_inference_queue_duration_us', by, _PODS)} / "
                  f"{_by('nv_inference_exec_count', by, _PODS)}", f"queue {legend}"),
        ),
        graph(
            "GPU", "percentunit",
            Query(f"avg by ({by}) (nv_gpu_utilization{{{_PODS}}})", f"used {legend}"),
            Query(f"sum by ({by}) (nv_gpu_memory_used_bytes{{{_PODS}}}) / "
                  f"sum by ({by}) (nv_gpu_memory_total_bytes{{{_PODS}}})", f"memory {legend}"),
            text="Empty for services on CPU.",
        ),
    ]  # fmt: skip


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def build() -> models.Dashboard:
    """The dashboard; panels are numbered in the order in which they appear."""
    board = (
        dashboard.Dashboard("Reranker operator")
        .uid("reranker-operator")
        .tags(["reranker-operator"])
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(
            _variable("namespace", "label_values(reranker_operator_service_ready, namespace)")
        )
        .with_variable(
            _variable(
                "service",
                'label_values(reranker_operator_service_ready{namespace=~"$namespace"}, name)',
            )
        )
    )
    for title, panels in (
        ("Fleet", _fleet()),
        ("Reconcile", _reconcile()),
        ("Serving", _serving()),
    ):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    for position, panel in enumerate(built.panels or [], 1):
        panel.id_val = position
    return built


def main() -> None:
    """Command line entry."""
    text = JSONEncoder(sort_keys=True, indent=2).encode(build())
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
