"""Small plots as SVG files with a light and a dark colour scheme."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from coldbench.report.chart_data import Axes, Chart, Series

SIZE = (3.6, 2.7)
INK, PALE, RULE = "#1c2126", "#5d6670", "#d9dcdf"
COLOURS = {  # light, dark and marker; most colour-blind readers can distinguish the colours
    "": ("#0072b2", "#6cb8e6", ""),
    "tacos": ("#0072b2", "#6cb8e6", "o"),
    "direct": ("#d55e00", "#f0935a", "s"),
    "naive": ("#007f5f", "#4fc9a4", "^"),
    "estimated": ("#7a3e78", "#d29bd0", "D"),
    "resampled": ("#8a6100", "#e0b64a", "v"),
    "naive_resampled": ("#5a5a5a", "#b5b5b5", "P"),
    "ddpm": ("#a3003c", "#ff8fb0", "X"),
}
OTHERS = (  # of plug-ins' methods, in the order of a plot
    ("#4b5fc0", "#9aa8f0", "<"), ("#b0327d", "#f08cc6", ">"), ("#56790f", "#b4d66b", "p"),
    ("#7d5a45", "#cfa78e", "h"), ("#00747a", "#62c5cb", "*"), ("#9a4a00", "#e8a25c", "d"),
)  # fmt: skip
DARK: Mapping[str, str] = {
    INK: "#e4e6e8", PALE: "#9ca5ae", RULE: "#363c42",
    **{light: dark for light, dark, _ in (*COLOURS.values(), *OTHERS)},
}  # fmt: skip
STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "coldbench", "font.size": 8.5, "text.parse_math": False}


def svg(chart: Chart, axes: Axes) -> tuple[str, int, int]:
    """One small plot as an SVG text with its watermark in a corner, and its width and height in CSS pixels."""
    with matplotlib.rc_context(STYLE):
        figure = drawn(chart, axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    width, height = figure.get_size_inches()
    return _themed(stream.getvalue()), round(width * 96), round(height * 96)


def drawn(chart: Chart, axes: Axes) -> Figure:
    """One small plot as matplotlib's figure."""
    rows = [point.label for line in axes.lines for point in line.points] if chart.style == "dots" else []
    height = max(SIZE[1], 1.5 + 0.24 * len(set(rows)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        FigureCanvasSVG(figure)
        plot = figure.add_subplot()
        others = list(dict.fromkeys(line.method for line in axes.lines if line.method not in COLOURS))
        for line in axes.lines:
            look = COLOURS.get(line.method) or OTHERS[others.index(line.method) % len(OTHERS)]
            (_dots if chart.style == "dots" else _line)(plot, line, chart.style, look)
        _dress(figure, plot, chart, axes)
    return figure


def _line(plot: Any, line: Series, style: str, look: tuple[str, str, str]) -> None:
    colour, _, marker = look
    x, y = [p.x for p in line.points], [p.y for p in line.points]
    few = len(x) < 3
    shape = {"marker": marker or ("o" if few else ""), "markersize": 4.5, "linewidth": 1.5}
    shape |= {"markerfacecolor": "none", "linestyle": ":"} if line.hollow else {}
    plot.plot(x, y, color=colour, label=line.label, **shape)
    if style == "line":
        low = [p.low if math.isfinite(p.low) else p.y for p in line.points]
        high = [p.high if math.isfinite(p.high) else p.y for p in line.points]
        plot.vlines(x, low, high, color=colour, linewidth=1.2)


def _dots(plot: Any, line: Series, style: str, look: tuple[str, str, str]) -> None:
    colour, _, marker = look
    y, values = [p.x for p in line.points], [p.y for p in line.points]
    plot.plot(values, y, color=colour, linestyle="", marker=marker, markersize=5, label=line.label)
    ends = [(p.low, p.high) if math.isfinite(p.low + p.high) else (p.y, p.y) for p in line.points]
    plot.hlines(y, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=1.2)


def _dress(figure: Figure, plot: Any, chart: Chart, axes: Axes) -> None:
    across, along = (axes.axis, "") if chart.style == "dots" else (chart.x_label, axes.axis)
    plot.set_xlabel(across, color=INK)
    plot.set_ylabel(along, color=INK)
    plot.spines[["top", "right"]].set_visible(False)
    plot.spines[["left", "bottom"]].set_color(PALE)
    plot.tick_params(which="both", colors=PALE, labelcolor=INK)
    plot.grid(axis="x" if chart.style == "dots" else "y", color=RULE, linewidth=0.8)
    plot.set_axisbelow(True)
    if chart.style == "dots":
        labels = {p.x: p.label for line in axes.lines for p in line.points}
        plot.set_yticks(list(labels), list(labels.values()))
        plot.set_ylim(max(labels) + 0.6, min(labels) - 0.6)
    else:
        _logarithmic(plot, chart, [p for line in axes.lines for p in line.points])
    for name, value in axes.levels:
        plot.axhline(value, color=PALE, linestyle="--", linewidth=1, label=name)
    if len(axes.lines) + len(axes.levels) > 1:
        handles, labels = plot.get_legend_handles_labels()
        entries = {label: handle for handle, label in zip(reversed(handles), reversed(labels), strict=True)}
        once = {label: entries[label] for label in dict.fromkeys(labels)}
        columns = 3 if max(map(len, once)) < 14 else 2
        figure.legend(
            once.values(), once.keys(), loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK,
            handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
    if axes.watermark:
        figure.supxlabel(axes.watermark, color=PALE, fontsize=7, x=0.99, ha="right")


def _logarithmic(plot: Any, chart: Chart, points: list[Any]) -> None:
    """Set logarithmic axes if all values are positive, with plain numbers at the ticks."""
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    across = sorted({p.x for p in points})
    if chart.log and across and across[0] > 0 and across[-1] > across[0]:
        plot.set_xscale("log")
        plot.xaxis.set_major_formatter(plain)
        plot.xaxis.set_minor_formatter(NullFormatter())
        if chart.style == "line":
            apart = _apart(across)
            plot.set_xticks(apart, [f"{x:,.0f}" for x in apart])
            plot.minorticks_off()
    values = [p.y for p in points if math.isfinite(p.y)]
    if chart.style == "curve" and values and min(values) > 0 and max(values) > 1.5 * min(values):
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter(plain)
        few = max(values) < 10 * min(values)
        some = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        plot.yaxis.set_minor_formatter(some if few else NullFormatter())


def _apart(values: list[float]) -> list[float]:
    """Those of the ascending values whose labels do not touch on a logarithmic axis from the first to the last one."""
    axis = math.log(values[-1] / values[0])
    gap, half_a_digit = 0.03, 0.011  # as shares of the axis, for plots of SIZE

    def touch(one: float, other: float) -> bool:
        return math.log(other / one) < (gap + half_a_digit * len(f"{one:,.0f}{other:,.0f}")) * axis

    kept = values[:1]
    for value in values[1:-1]:
        if not touch(kept[-1], value) and not touch(value, values[-1]):
            kept.append(value)
    return [*kept, values[-1]]


def _themed(text: str) -> str:
    """Replace colours by CSS variables, which have other values in the dark colour scheme."""
    light = "".join(f"--{key[1:]}:{key};" for key in DARK)
    dark = "".join(f"--{key[1:]}:{value};" for key, value in DARK.items())
    for key in DARK:
        text = text.replace(f": {key}", f": var(--{key[1:]})")
    head, tag, rest = text.partition("<svg ")
    inside, end, rest = rest.partition(">")
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}</style>"
    return f"{head}{tag}{inside}{end}{style}{rest}"
