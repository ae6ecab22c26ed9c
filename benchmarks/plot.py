"""Ratios of CPU time as one picture: SVG text, no library, no script, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from record import Row

WIDTH, LEFT, RIGHT, TOP, LINE = 960, 500, 80, 76, 22
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .head { font-weight: 600 } .small { fill: #57606a }
.grid { stroke: #d0d7de } .one { stroke: #57606a; stroke-width: 1.5 } .ground { fill: #ffffff }
.faster { stroke: #1f6f43; fill: #1f6f43 } .slower { stroke: #b3400f; fill: #b3400f } .even { stroke: #6e7781; fill: #6e7781 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9da7b1 } .grid { stroke: #30363d } .one { stroke: #9da7b1 }
  .ground { fill: #0d1117 }
  .faster { stroke: #56d364; fill: #56d364 } .slower { stroke: #ffa657; fill: #ffa657 }
  .even { stroke: #8b949e; fill: #8b949e }
}
"""  # noqa: E501


def ratios(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """A mark at the median of each row and a line from its smallest to its largest ratio, on a logarithmic scale.

    A dot is faster, a square slower, a ring neither: shape tells what colour tells.
    """
    every = [x for _, rows in groups for row in rows for x in row.ratios]
    low = 2.0 ** math.floor(math.log2(min([0.5, *every])))
    high = 2.0 ** math.ceil(math.log2(max([2.0, *every])))

    def across(ratio: float) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * math.log(ratio / low) / math.log(high / low)

    height = TOP + LINE * sum(len(rows) + 1 for _, rows in groups) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="CPU time of other programs divided by that of rechka">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        '<text class="head" x="12" y="20">CPU time of the other program divided by that of rechka</text>',
        '<text class="small" x="12" y="38">right of 1 rechka is faster (dot), left slower '
        "(square), ring: even; line: smallest to largest</text>",
    ]
    mark = low
    while mark <= high:
        x, name = across(mark), f"{mark:g}" if mark >= 1 else f"1/{1 / mark:g}"
        parts.append(f'<path class="{"one" if mark == 1 else "grid"}" d="M{x:.1f} {TOP - 4}V{height - 12}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{TOP - 8}" text-anchor="middle">{name}</text>')
        mark *= 2
    y = TOP
    for name, rows in groups:
        y += LINE
        parts.append(f'<text class="head" x="12" y="{y - 6}">{escape(name)}</text>')
        for row in rows:
            y += LINE
            parts += _row(row, y - 10, [across(x) for x in (min(row.ratios), row.median, max(row.ratios))])
    return "\n".join([*parts, "</svg>", ""])


def _row(row: Row, y: float, at: list[float]) -> list[str]:
    """Label, line, mark and number."""
    kind = {"faster": "faster", "**slower**": "slower"}.get(row.verdict, "even")
    label = ("" if row.ours == "rechka" else row.ours.removeprefix("rechka, ") + ": ") + row.what
    low, middle, high = at
    shape = (
        f'<rect x="{middle - 4.5:.1f}" y="{y - 4.5}" width="9" height="9" class="slower"/>'
        if kind == "slower"
        else f'<circle cx="{middle:.1f}" cy="{y}" r="4.5" class="{kind}"'
        + (' style="fill: none" stroke-width="2"/>' if kind == "even" else "/>")
    )
    return [
        f'<text x="24" y="{y + 4}">{escape(label)}<tspan class="small">  · {escape(row.peer)}</tspan></text>',
        f'<path class="{kind}" stroke-width="2" d="M{low:.1f} {y}H{high:.1f}"/>',
        shape,
        f'<text x="{WIDTH - 12}" y="{y + 4}" text-anchor="end">{row.median:.2f}</text>',
    ]
