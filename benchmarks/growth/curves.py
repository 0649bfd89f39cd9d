"""Curves of growth: a cost at several sizes, the order in which it grows, their table and plot."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from benchmarks.load.figures import Figure, number

# Between constant (0) and linear (1) there is the logarithm, whose slope is below this, and noise.
TOLERANCE = 0.25
STYLES = ("o-", "s-", "^-", "d-", "v-")


@dataclass
class Curve:
    """The CPU time of something, in µs of the server, by the size of what it depends on.

    `order` is the exponent that is expected: 0 for a constant cost, 1 for one that is linear.
    """

    dimension: str  # what there is more and more of
    cost: str
    order: float
    points: list[tuple[int, float]] = field(default_factory=list)

    def add(self, size: int, seconds: float) -> None:
        """Add what it takes at a size."""
        self.points.append((size, seconds * 1e6))

    @property
    def exponent(self) -> float:
        """The slope of the line through the points, both axes logarithmic, by least squares."""
        points = [(math.log(size), math.log(max(value, 1.0))) for size, value in self.points]
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0

    def figure(self) -> Figure:
        """The row that says whether the cost grows as expected."""
        note = " → ".join(f"{number(value)} µs" for _, value in self.points)
        name = f"{self.cost}, by {self.dimension}: exponent"
        return Figure(name, self.exponent, "", self.order + TOLERANCE, at_most=True, note=note)


def growth_table(curves: Sequence[Curve]) -> str:
    """A Markdown table: a row for each curve, a column for each size."""
    sizes = sorted({size for curve in curves for size, _ in curve.points})
    head = ["of", "cost", *(f"{size:,}" for size in sizes), "exponent", "expected"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for curve in curves:
        known = dict(curve.points)
        cells = [f"{number(known[size])} µs" if size in known else "" for size in sizes]
        row = [curve.dimension, curve.cost, *cells, f"{curve.exponent:.2f}", f"{curve.order:g}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def plot(curves: Iterable[Curve], path: Path) -> None:
    """Draw the curves, those of a dimension in a picture of their own, with what linear would be.

    Raises ModuleNotFoundError without matplotlib.
    """
    import matplotlib as mpl  # only who draws needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt

    by_dimension = [(name, list(each)) for name, each in groupby(curves, lambda one: one.dimension)]
    figure, axes = plt.subplots(
        1, len(by_dimension), figsize=(4.2 * len(by_dimension), 4), squeeze=False
    )
    for axis, (dimension, of_dimension) in zip(axes[0], by_dimension, strict=True):
        for curve, style in zip(of_dimension, STYLES, strict=False):
            sizes, values = zip(*curve.points, strict=True)
            label = f"{curve.cost} ({curve.exponent:.2f}, expected {curve.order:g})"
            axis.loglog(sizes, values, style, label=label)
        _draw_linear(axis, of_dimension)
        axis.set_xlabel(dimension)
        axis.legend(fontsize="x-small")
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel("CPU time of the server, µs")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _draw_linear(axis: object, curves: Sequence[Curve]) -> None:
    """A dotted line that shows the slope of what is linear."""
    sizes = sorted({size for curve in curves for size, _ in curve.points})
    lowest = min(value for curve in curves for _, value in curve.points)
    ends = sizes[0], sizes[-1]
    values = [lowest * size / sizes[0] for size in ends]
    axis.loglog(ends, values, ":", color="grey", label="linear")  # type: ignore[attr-defined]
