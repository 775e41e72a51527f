"""Plots as inline SVG in the colours of the page, light or dark.

Matplotlib draws with placeholder colours, which are replaced by CSS variables. Text stays text, and the
same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fieldmark.utils.languages import decimal_point, number, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from fieldmark.evaluation.metrics import ReliabilityBin

# Placeholder colours, each replaced by a CSS variable of style.css.
INK, MUTED, GRID, BACK, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = ("#060606", "#070707", "#080808", "#090909", "#0a0a0a")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    BACK: "card",
    PAPER: "paper",
    **{colour: f"series-{at}" for at, colour in enumerate(SERIES, 1)},
}
_MARKERS = "osD^v"
_LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": INK}
_WIDEST = 60  # characters of a legend in one line, in a wide font of the reader


@dataclass(frozen=True)
class Dot:
    """One row of `dots`: a value with its interval, and the value of the paper."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    paper: float | None = None
    hollow: bool = False  # a network without complete pretrained weights


@dataclass(frozen=True)
class Line:
    """One line: y over x; `hollow` as in `Dot`."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    hollow: bool = False


def histogram(
    name: str, title: str, edges: Sequence[float], counts: Sequence[int], threshold: float | None
) -> str:
    """Plot how many classes have how many photos; a dashed line marks the pruning threshold."""
    figure, axes = _figure(3.0)
    widths = [high - low for low, high in pairwise(edges)]
    axes.bar(edges[:-1], counts, widths, align="edge", color=SERIES[0], edgecolor=BACK, linewidth=0.8)
    if threshold is not None and edges[0] < threshold < edges[-1]:
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "va": "bottom", "ha": "center"}
        said = say("pruned below {photos}", photos=number(threshold))
        axes.annotate(f" {said}", (threshold, 1), color=INK, **place)
    axes.set(xlabel=say("photos in the class"), ylabel=say("classes"))
    return _svg(figure, name, title)


def dots(
    name: str, title: str, rows: Sequence[Dot], xlabel: str, theirs: str = "", *, percent: bool = False
) -> str:
    """Plot a dot with its interval for each row, and the paper's value as a diamond."""
    figure, axes = _figure(0.9 + 0.34 * max(1, len(rows)))
    places = list(range(len(rows)))[::-1]
    for place, row in zip(places, rows, strict=True):
        if row.interval:
            axes.plot(row.interval, (place, place), color=SERIES[0], linewidth=2)
        face = BACK if row.hollow else SERIES[0]
        axes.plot([row.value], [place], "o", color=SERIES[0], markerfacecolor=face, markersize=7)
        if row.paper is not None:
            axes.plot([row.paper], [place], "D", color=PAPER, markersize=5.5)
    axes.set_yticks(places, [_plain(row.label) for row in rows])
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=xlabel)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    if percent:
        _percent(axes.xaxis)
    if any(row.hollow or row.paper is not None for row in rows):
        _dots_legend(figure, axes, rows, theirs)
    return _svg(figure, name, title)


def _dots_legend(figure: Figure, axes: Axes, rows: Sequence[Dot], theirs: str) -> None:
    keys = (
        (not all(row.hollow for row in rows), "o", SERIES[0], SERIES[0], say("here, with 95 % CI")),
        (any(row.hollow for row in rows), "o", SERIES[0], BACK, say("here, not fully pretrained")),
        (any(row.paper is not None for row in rows), "D", PAPER, PAPER, theirs),
    )
    handles = [
        axes.plot([], [], marker, color=edge, markerfacecolor=face, label=label)[0]
        for shown, marker, edge, face, label in keys
        if shown
    ]
    long = sum(len(label) for shown, *_, label in keys if shown) > _WIDEST
    columns = 2 if long else len(handles)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, **_LEGEND)


def places(
    name: str,
    title: str,
    rows: Sequence[tuple[float, float, int, float]],
    labels: tuple[str, str] | None = None,
) -> str:
    """Plot places by longitude and latitude: (latitude, longitude, photos, error) each."""
    figure, axes = _figure(4.0)
    most, worst = max(photos for *_, photos, _ in rows), max(wrong for *_, wrong in rows) or 1
    for latitude, longitude, photos, wrong in rows:
        size, shade = 5 + 13 * math.sqrt(photos / most), 0.15 + 0.75 * wrong / worst
        axes.plot([longitude], [latitude], "o", color=SERIES[0], alpha=shade, markersize=size)
        axes.plot([longitude], [latitude], "o", color=SERIES[0], fillstyle="none", markersize=size)
    middle = math.radians(sum(latitude for latitude, *_ in rows) / len(rows))
    across, up = labels or (say("longitude"), say("latitude"))
    axes.set(xlabel=across, ylabel=up, aspect=1 / max(0.05, math.cos(middle)))
    axes.margins(0.15)
    axes.ticklabel_format(useOffset=False)
    return _svg(figure, name, title)


def lines(name: str, title: str, rows: Sequence[Line], xlabel: str, ylabel: str) -> str:
    """Plot a line for each row over epochs."""
    figure, axes = _figure(3.2)
    _draw_lines(axes, rows, xlabel, ylabel)
    return _svg(figure, name, title)


def learning_curve(name: str, title: str, losses: Sequence[Line], errors: Sequence[Line]) -> str:
    """Plot the losses on the left and the errors on the right, over epochs.

    The first error has the colour of the second loss: both are of the validation photos.
    """
    figure, axes = _figure(3.0, columns=2)
    _draw_lines(axes[0], losses, say("epoch"), say("loss"))
    _draw_lines(axes[1], errors, say("epoch"), say("top-1 error"), first=1)
    _percent(axes[1].yaxis)
    return _svg(figure, name, title)


def _draw_lines(axes: Axes, rows: Sequence[Line], xlabel: str, ylabel: str, *, first: int = 0) -> None:
    from matplotlib.ticker import MaxNLocator

    for at, row in enumerate(rows, first):
        colour = SERIES[at % len(SERIES)]
        axes.plot(
            row.x,
            row.y,
            marker=_MARKERS[at % len(_MARKERS)],
            markersize=4.5,
            linewidth=1.8,
            color=colour,
            markerfacecolor=BACK if row.hollow else colour,
            label=_plain(row.label),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if rows:
        axes.legend(**_LEGEND)


def reliability(name: str, title: str, series: Mapping[str, Sequence[ReliabilityBin]]) -> str:
    """Plot the share of right answers against the confidence; on the diagonal they are equal."""
    figure, axes = _figure(4.2)
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=say("ideal"))
    for at, (label, bins) in enumerate(series.items()):
        axes.plot(
            [one.confidence for one in bins],
            [one.accuracy for one in bins],
            marker=_MARKERS[at],
            markersize=5,
            linewidth=1.6,
            color=SERIES[at],
            label=_plain(label),
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=say("confidence"), ylabel=say("right answers"))
    _percent(axes.xaxis, axes.yaxis)
    figure.legend(loc="outside upper left", ncols=len(series) + 1, **_LEGEND)
    return _svg(figure, name, title)


def coverage(
    name: str, title: str, points: Sequence[tuple[float, float]], chosen: tuple[float, float] | None
) -> str:
    """Plot the precision of answers against their coverage; the chosen point is marked."""
    figure, axes = _figure(3.2)
    shares, precisions = zip(*points, strict=True)
    axes.plot(shares, precisions, color=SERIES[0], linewidth=1.8, marker=_MARKERS[0], markersize=4)
    if chosen is not None:
        axes.plot(*chosen, "D", color=SERIES[1], markersize=8, label=say("its threshold"))
        axes.legend(loc="lower left", **_LEGEND)
    axes.set(xlim=(0, 1.02), xlabel=say("coverage: photos with a species as the answer"))
    axes.set(ylabel=say("precision: right answers among these"))
    _percent(axes.xaxis, axes.yaxis)
    return _svg(figure, name, title)


def _percent(*each: Axis) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in each:
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _plain(label: str) -> str:
    """Escape dollar signs, between which matplotlib would read a formula."""
    return label.replace("$", r"\$")


def _figure(height: float, columns: int = 1) -> tuple[Figure, Any]:
    """Return a figure and its axes in the colours of the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, height), layout="constrained")
    axes = figure.subplots(1, columns)
    for one in [axes] if columns == 1 else axes:
        one.patch.set_visible(False)
        one.grid(axis="y", color=GRID, linewidth=0.8)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(MUTED)
        one.tick_params(colors=MUTED, labelcolor=INK)
        one.xaxis.label.set_color(INK)
        one.yaxis.label.set_color(INK)
    figure.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an `<svg>` element whose ids begin with `name`, with a title."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, new in (
        # A style element would apply to the whole page.
        (r"(?s)<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", ""),
        (r'\bid="([^"]+)"', rf'id="{name}-\1"'),
        (r"url\(#([^)]+)\)", rf"url(#{name}-\1)"),
        (r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"'),
        # Use the font of the page; versions of matplotlib write the family in two ways.
        (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
        (r"font-family: [^;\"]*;? ?", ""),
    ):
        text = re.sub(pattern, new, text)
    # Labels that are numbers, on the axes.
    text = re.sub(r">(−?\d+)\.(\d+(?: %)?)</text>", rf">\1{decimal_point()}\2</text>", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]+"', text)
    opening = f'<svg {box[0] if box else ""} role="img" aria-labelledby="{name}-title">'
    head = f'{opening}<title id="{name}-title">{escape(title)}</title>'
    return head + re.sub(r"\n\s*", "\n", text[text.index(">") + 1 :])
