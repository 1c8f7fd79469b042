"""Draws the outcomes: for each policy, the share of requests over the time they took.

Written as SVG by hand: text that any browser shows, and no library to depend on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ._report import quantile
from ._run import Outcome

WIDTH, HEIGHT = 980, 446
LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP = 56, 56, 400, 290, 72

# Colours that colour-blind people can tell apart as well (Okabe and Ito, 2008).
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#7f7f7f", "#8c564b", "#17a589", "#000000"),
)

# Points of a curve: enough for a smooth one, and few enough for a small file.
LEVELS = (*(level / 200 for level in range(1, 200)), 0.9975, 0.999, 1.0)

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#e4e4e4}.axis{stroke:#888}.curve{fill:none;stroke-width:2}"
)


def picture(outcomes: Mapping[str, Sequence[Outcome]], *, title: str) -> str:
    """The SVG document: time to the first text on the left, to the whole answer on the right."""
    whole = {
        policy: sorted(r.completion for o in runs for r in o.requests if r.completion is not None)
        for policy, runs in outcomes.items()
    }
    first = {
        policy: sorted(r.first_text for o in runs for r in o.requests if r.first_text is not None)
        for policy, runs in outcomes.items()
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" class="title">{escape(title)}</text>',
        *_panel(LEFT, "time to the first text (s)", first),
        *_panel(LEFT + PANEL_WIDTH + GAP, "time to the whole answer (s)", whole),
        *_legend(list(outcomes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(left: int, caption: str, curves: Mapping[str, Sequence[float]]) -> list[str]:
    values = [value for curve in curves.values() for value in (curve[:1], curve[-1:]) if value]
    low = max(1e-3, min((value[0] for value in values), default=0.1))
    high = max((value[0] for value in values), default=1.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(max(high, low * 1.01)))
    bottom = TOP + PANEL_HEIGHT

    def x(value: float) -> float:
        share = (math.log10(max(value, 10**first)) - first) / max(1, last - first)
        return left + share * PANEL_WIDTH

    parts = []
    for level in (0, 25, 50, 75, 95, 100):
        y = bottom - level / 100 * PANEL_HEIGHT
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:g}" y2="{y:g}"/>'
            f'<text x="{left - 6}" y="{y + (8 if level == 95 else 4):g}" text-anchor="end">'
            f"{level}%</text>"
        )
    for power in range(first, last + 1):
        place = x(10.0**power)
        parts.append(
            f'<line class="grid" x1="{place:g}" x2="{place:g}" y1="{TOP}" y2="{bottom}"/>'
            f'<text x="{place:g}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g}</text>'
        )
    parts.append(
        f'<path class="axis" fill="none" d="M{left} {TOP}V{bottom}H{left + PANEL_WIDTH}"/>'
        f'<text x="{left + PANEL_WIDTH / 2:g}" y="{bottom + 34}" text-anchor="middle">{caption}'
        "</text>"
    )
    for index, curve in enumerate(curves.values()):
        if curve:
            points = " ".join(
                f"{x(quantile(curve, level)):.1f},{bottom - level * PANEL_HEIGHT:.1f}"
                for level in LEVELS
            )
            parts.append(
                f'<polyline class="curve" stroke="{COLOURS[index % len(COLOURS)]}" '
                f'points="{points}"/>'
            )
    return parts


def _legend(policies: Sequence[str]) -> list[str]:
    parts = []
    place, y = float(LEFT), HEIGHT - 40
    for index, policy in enumerate(policies):
        width = 36 + 6.6 * len(policy)
        if place + width > WIDTH:
            place, y = float(LEFT), y + 20
        colour = COLOURS[index % len(COLOURS)]
        parts.append(
            f'<line class="curve" stroke="{colour}" x1="{place:g}" x2="{place + 16:g}" '
            f'y1="{y}" y2="{y}"/><text x="{place + 20:g}" y="{y + 4}">{escape(policy)}</text>'
        )
        place += width
    return parts
