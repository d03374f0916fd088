"""The table: our figure, the bar, and the NIM Operator's, here or as it was measured elsewhere."""

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One figure; `least` where more is better."""

    figure: str
    name: str
    unit: str
    bar: float
    nim: str
    least: bool = False


ROWS = [
    Row("apply 1,000 → all Deployments exist", "applied_deployments_seconds", "s", 90, "124 s"),
    Row("apply 1,000 → all Ready", "applied_ready_seconds", "s", 120, "163 s"),
    Row("operator CPU until settled", "apply_cpu_seconds", "s", 70, "71 s"),
    Row("RSS peak", "rss_peak_mib", "MiB", 200, "214 MiB"),
    Row("RSS settled", "rss_settled_mib", "MiB", 180, "187 MiB"),
    Row("steady state: writes", "steady_writes", "", 0, "0"),
    Row("steady state: CPU of a core", "steady_cpu_percent", "%", 2, "0.3 %"),
    Row("spec change → child updated, p95", "change_p95_seconds", "s", 0.2, "0.05 s"),
    Row("the same, others not ready, p95", "change_beside_unready_p95_seconds", "s", 0.3, "17 s"),
    Row("the same, one server hangs, p95", "change_beside_hanging_p95_seconds", "s", 0.3, "34 s"),
    Row("pods stop answering → not Ready", "silent_pods_seconds", "s", 15, "stays Ready"),
    Row("restart → calm", "restart_calm_seconds", "s", 30, "35 s"),
    Row("restart: writes", "restart_writes", "", 0, "1,000"),
    Row("restart: events", "restart_events", "", 0, "1,000"),
    Row("restart: pods replaced", "restart_pods_replaced", "", 0, ""),
    Row("drift: kinds repaired of eight", "drift_repaired", "", 8, "3", least=True),
    Row("drift repaired, p99", "drift_p99_seconds", "s", 2, ""),
    # Four objects are owned: Deployment, Service, a share of the engine and of the claim.
    Row("writes per service until Ready", "writes_per_service", "", 7, "8"),
    Row("events per service until Ready", "events_per_service", "", 2, "2"),
    Row("reads per service until Ready", "reads_per_service", "", 10, "8"),
    Row("API server ill for 120 s → caught up", "outage_caught_up_seconds", "s", 60, ""),
    Row("delete 1,000 → everything gone", "deleted_seconds", "s", 60, "60 s"),
]
_HEADS = ("figure", "ours", "bar", "NIM Operator", "")


def table(
    values: Mapping[str, float | None], beside: Mapping[str, float] | None = None
) -> tuple[str, bool]:
    """As text, and whether every bar is held. `beside`: the NIM Operator's figures in this run."""
    lines, passed = [_HEADS], True
    for row in ROWS:
        value = values.get(row.name)
        held = value is not None and (value >= row.bar if row.least else value <= row.bar)
        passed = passed and held
        ours = "not measured" if value is None else f"{value:.4g} {row.unit}".strip()
        sign = "≥" if row.least else "≤"
        bar = f"{sign} {row.bar:g} {row.unit}".strip()
        nim, verdict = row.nim, "" if held else "missed"
        if (theirs := (beside or {}).get(row.name)) is not None:
            nim = f"here {theirs:.4g} {row.unit}, elsewhere {row.nim}"
            if value is not None:
                verdict = f"{value / theirs:.2f} of it {verdict}".rstrip()
        lines.append((row.figure, ours, bar, nim, verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADS))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return text + "\n", passed
