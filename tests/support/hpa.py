"""What the HPA controller says of itself."""

from support.kubectl import Json


def average(hpa: Json, kind: str, metric: str) -> str:
    """What each pod has of a metric of this kind, as it has seen it last; empty before that."""
    for entry in hpa.get("status", {}).get("currentMetrics") or ():
        # One that could not be read stands there as an entry of no kind.
        if kind in entry and entry[kind]["metric"]["name"] == metric:
            return str(entry[kind]["current"]["averageValue"])
    return ""
