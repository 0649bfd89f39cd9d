"""Figures and the table that they are printed as."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One result. `target` is met by figures at least, or with `at_most` at most, as large."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def rating(self) -> str:
        """`yes` or `no`: whether the target is met; empty without a target."""
        if self.target is None:
            return ""
        met = self.value <= self.target if self.at_most else self.value >= self.target
        return "yes" if met else "no"

    def cells(self) -> tuple[str, str, str, str, str]:
        """The cells of the table's row."""
        target = ""
        if self.target is not None:
            target = f"{'≤' if self.at_most else '≥'} {number(self.target)} {self.unit}"
        return self.name, f"{number(self.value)} {self.unit}", target, self.rating, self.note


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, aligned so that it can be read unrendered."""
    rows = [("measure", "figure", "target", "met", "note"), *[one.cells() for one in figures]]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"
