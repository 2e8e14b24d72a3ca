"""The drawing: bars in log scale, one block per workload, for light and dark pages."""

from __future__ import annotations

import math
from html import escape

from benchmarks.page import number
from benchmarks.rounds import Series, Table
from benchmarks.targets import US
from benchmarks.workloads import WORKLOADS

_WIDTH = 760
_LEFT = 150
_RIGHT = 90
_BAR = 16
_STEP = 21
_HEAD = 46
_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .title { font-weight: 600; }
    .tick, .note { font-size: 11px; fill: #59636e; }
    .grid { stroke: #d1d9e0; }
    .ours { fill: #0969da; }
    .rival { fill: #9aa4ae; }
    .spread { stroke: #24292f; stroke-width: 1.5; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .tick, .note { fill: #9198a1; }
      .grid { stroke: #3d444d; }
      .ours { fill: #4493f8; }
      .rival { fill: #656c76; }
      .spread { stroke: #e6edf3; }
    }
"""


def draw(table: Table) -> str:
    """Draw what was measured as SVG."""
    parts: list[str] = []
    top = 10
    for workload, row in table.items():
        measured = {name: s for name, s in row.items() if s.values(WORKLOADS[workload].figure)}
        if measured:
            parts += _block(workload, measured, top)
            top += _HEAD + _STEP * len(measured) + 14
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" '
                f'width="{_WIDTH}" height="{top}" role="img">'
            ),
            "  <title>okanjo_conductor beside other pools, two workers</title>",
            f"  <style>{_STYLE}  </style>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _block(workload: str, row: dict[str, Series], top: int) -> list[str]:
    kind = WORKLOADS[workload]
    scale = _Scale([value for series in row.values() for value in series.values(kind.figure)])
    better = "more is better" if kind.is_more_better else "less is better"
    bottom = top + _HEAD + _STEP * len(row)
    parts = [
        (
            f'  <text class="title" x="0" y="{top + 14}">{escape(kind.title)} '
            f'<tspan class="note">{escape(kind.unit)}, {better}, log scale</tspan></text>'
        )
    ]
    for tick in scale.ticks():
        x = scale.x(tick)
        parts += [
            (
                f'  <text class="tick" x="{x:.1f}" y="{top + 34}" text-anchor="middle">'
                f"{number(tick)}</text>"
            ),
            f'  <line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 40}" y2="{bottom}"/>',
        ]
    for index, (name, series) in enumerate(row.items()):
        parts += _bar(name, series, kind.figure, scale, top + _HEAD + _STEP * index)
    return parts


def _bar(name: str, series: Series, figure: str, scale: _Scale, y: int) -> list[str]:
    values = series.values(figure)
    middle, low, high = (scale.x(v) for v in (series.median(figure), min(values), max(values)))
    colour = "ours" if name.startswith(US) else "rival"
    centre = y + _BAR / 2
    return [
        f'  <text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
        (
            f'  <rect class="{colour}" x="{_LEFT}" y="{y}" width="{middle - _LEFT:.1f}" '
            f'height="{_BAR}" rx="2"/>'
        ),
        f'  <line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{centre}" y2="{centre}"/>',
        (
            f'  <text x="{max(middle, high) + 6:.1f}" y="{y + 13}">'
            f"{number(series.median(figure))}</text>"
        ),
    ]


class _Scale:
    """Where a value is drawn: from half of the lowest to the highest."""

    def __init__(self, values: list[float]) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._low = math.log10(min(positive) / 2)
        self._high = math.log10(max(positive))

    def x(self, value: float) -> float:
        share = (math.log10(max(value, 1e-12)) - self._low) / (self._high - self._low)
        return _LEFT + max(0.0, share) * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        """Return powers of ten, and 2 and 5 times them where that leaves room."""
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        steps = (1, 2, 5) if self._high - self._low < 2 else (1,)  # noqa: PLR2004
        found = [step * 10.0**power for power in powers for step in steps]
        return [tick for tick in found if self._low <= math.log10(tick) <= self._high]
