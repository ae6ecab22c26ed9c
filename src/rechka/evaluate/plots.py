"""Small charts as SVG text: no library, no script, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 240, 60, 40, 28, 12
COLOURS = ("#2f6fb3", "#c2571a", "#3b8f5a", "#8a4fa3")
LEGEND_LETTERS = 22


def _frame(title: str, x_label: str, y_label: str, inner: Sequence[str]) -> str:
    middle_y = (TOP + HEIGHT - BOTTOM) / 2
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(12 {middle_y}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
        *inner,
        "</svg>",
    ]
    return "\n".join(parts)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def _ticks(top: float) -> list[str]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share * top, top)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share * top:.0f} %</text>')
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
    return parts


def points(
    title: str, x_label: str, names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float] | None]]
) -> str:
    """Rates with intervals over named groups, one colour a model.

    Args:
        names: of the groups, along x.
        series: per model for each group (rate, low, high) as fractions, None where it has none.
    """
    highest = max((item[2] for rows in series.values() for item in rows if item), default=1.0)
    top = max(0.05, -(-highest * 20 // 1) / 20)
    step = (WIDTH - RIGHT - LEFT) / max(1, len(names))
    inner = _ticks(top)
    for place, name in enumerate(names):
        x = LEFT + step * (place + 0.5)
        inner.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(name)}</text>')
    for number, (model, rows) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        for place, item in enumerate(rows):
            if item is None:
                continue
            x = LEFT + step * (place + 0.5) + 10 * (number - (len(series) - 1) / 2)
            value, low, high = (_y(min(v, top), top) for v in item)
            inner.append(f'<path stroke="{colour}" d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
            inner.append(
                f'<circle cx="{x:.1f}" cy="{value:.1f}" r="4" fill="{colour}">'
                f"<title>{escape(model)}: {100 * item[0]:.1f} %</title></circle>"
            )
    if len(series) > 1:
        inner += _legend(series)
    return _frame(title, x_label, "WER", inner)


def _legend(names: Iterable[str]) -> list[str]:
    """Colours and names below the axis, side by side."""
    parts, x = [], float(LEFT)
    for number, name in enumerate(names):
        shown = name if len(name) <= LEGEND_LETTERS else f"{name[: LEGEND_LETTERS - 1]}…"
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<circle cx="{x + 4:.1f}" cy="{HEIGHT - 10}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 12:.1f}" y="{HEIGHT - 6}">{escape(shown)}</text>')
        x += 28 + 6.2 * len(shown)
    return parts


def reliability(title: str, bins: Sequence[dict[str, float]]) -> str:
    """Accuracy over confidence; the diagonal is where both agree, a dot's area follows its number of words."""
    inner = _ticks(1.0)
    span = WIDTH - RIGHT - LEFT
    inner.append(f'<path class="grid" d="M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {TOP}"/>')
    most = max((item["num_words"] for item in bins), default=1)
    for item in bins:
        x, y = LEFT + span * item["confidence"], _y(item["accuracy"], 1.0)
        radius = 3 + 7 * (item["num_words"] / most) ** 0.5
        inner.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{COLOURS[0]}" fill-opacity="0.75">'
            f"<title>{int(item['num_words'])} words: confidence {item['confidence']:.2f}, "
            f"right {100 * item['accuracy']:.0f} %</title></circle>"
        )
    for mark in (0.0, 0.5, 1.0):
        inner.append(
            f'<text x="{LEFT + span * mark:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{mark:g}</text>'
        )
    return _frame(title, "confidence", "words right", inner)


def histogram(title: str, x_label: str, values: Sequence[float], limit: float | None = None, num_bins: int = 24) -> str:
    """Shares of values in bins from zero to ``limit``, usually the 99th percentile; the rest goes into the last bin."""
    ordered = sorted(values)
    limit = percentile_99(ordered) if limit is None else limit
    bins = [0] * num_bins
    for value in ordered:
        bins[min(num_bins - 1, int(value / limit * num_bins))] += 1
    top = max(bins) / len(ordered)
    step = (WIDTH - RIGHT - LEFT) / num_bins
    inner = _ticks(top)
    for place, count in enumerate(bins):
        y = _y(count / len(ordered), top)
        inner.append(
            f'<rect x="{LEFT + step * place + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}" fill="{COLOURS[0]}"/>'
        )
    for mark in (0.0, 0.5, 1.0):
        x = LEFT + (WIDTH - RIGHT - LEFT) * mark
        inner.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{limit * mark:.2f}</text>')
    return _frame(title, x_label, "words", inner)


def percentile_99(ordered: Sequence[float]) -> float:
    """Of sorted values; at least a thousandth."""
    return max(ordered[int(0.99 * (len(ordered) - 1))], 1e-3)
