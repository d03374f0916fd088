"""The results as a picture: for each load what every rule took, and how often it was late. SVG."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from simulate import Result

#: By the first word of a rule's name.
_COLOURS = {"ours": "#0a7d4f", "KubeAI": "#c2410c", "HPA": "#1d4ed8", "KEDA": "#a16207"}
_WIDE, _HIGH, _COLUMNS = 250, 200, 4
_LEFT, _TOP, _ROOM = 44, 30, 18
#: Shares below this are drawn as this: nought has no place on a logarithmic scale.
_LEAST = 0.0005


def draw(results: Sequence[Sequence[Result]]) -> str:
    """One small diagram for each load; left and low is better."""
    rows = math.ceil(len(results) / _COLUMNS)
    width, height = _COLUMNS * _WIDE, rows * _HIGH + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for at, row in enumerate(results):
        x, y = at % _COLUMNS * _WIDE, at // _COLUMNS * _HIGH
        parts.append(f'<g transform="translate({x},{y})">{_diagram(row)}</g>')
    parts.append(_legend(rows * _HIGH + 14))
    return "\n".join([*parts, "</svg>", ""])


def _diagram(row: Sequence[Result]) -> str:
    right, bottom = _WIDE - _ROOM, _HIGH - 34
    most = max(result.replica_hours for result in row) * 1.08
    title = f"{row[0].trace}, pods start in {row[0].start_seconds:.0f} s"
    parts = [_text(_LEFT, 16, title, bold=True)]
    for share in (0.001, 0.01, 0.1, 1.0):
        y = _height(share, bottom)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 4, y + 3, f"{share:.1%}".replace(".0%", "%"), end=True))
    parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#555"/>')
    for part in (0.5, 1.0):
        x = _LEFT + (right - _LEFT) * part
        parts.append(_text(x, bottom + 12, f"{most * part:.1f}", end=True))
    parts.append(_text(right, bottom + 24, "replica-hours", end=True))
    lines: dict[str, list[str]] = {}
    for result in row:
        colour = _COLOURS[_family(result)]
        x = _LEFT + (right - _LEFT) * result.replica_hours / most
        y = _height(result.late, bottom)
        lines.setdefault(colour, []).append(f"{x:.1f} {y:.1f}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" fill-opacity="0.85">'
            f"<title>{escape(result.rule)}: {result.replica_hours:.2f} replica-hours, "
            f"{result.late:.2%} late</title></circle>"
        )
    for colour, points in lines.items():
        parts.append(f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}"/>')
    return "".join(parts)


def _height(share: float, bottom: float) -> float:
    part = math.log(max(share, _LEAST) / _LEAST) / math.log(1 / _LEAST)
    return bottom - (bottom - _TOP) * part


def _family(result: Result) -> str:
    return result.rule.split(",")[0]


def _legend(y: float) -> str:
    parts, x = [], 14.0
    names = {
        "KubeAI": "KubeAI, requests in progress, mean of 10 minutes",
        "HPA": "HPA on CPU",
        "KEDA": "KEDA on requests per second",
    }
    for family, colour in _COLOURS.items():
        name = names.get(family, family)
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>')
        parts.append(_text(x + 9, y + 4, name))
        x += 34 + 6 * len(name)
    words = (
        "Up: share of requests that were answered late or refused. Right: what was spent. Left and "
        "low is better. Lines join the settings of one rule."
    )
    return "".join([*parts, _text(9, y + 22, words)])


def _text(x: float, y: float, words: str, *, bold: bool = False, end: bool = False) -> str:
    more = ' font-weight="bold"' if bold else ""
    more += ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'
