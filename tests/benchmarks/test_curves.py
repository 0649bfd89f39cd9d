"""The order in which a cost grows, as the benchmarks compute and draw it."""

from pathlib import Path

import pytest

from benchmarks.growth.curves import Curve, growth_table, plot


def curve(order: float, *points: tuple[int, float]) -> Curve:
    """A curve through points, in µs."""
    made = Curve("rooms", "a sync", order)
    for size, value in points:
        made.add(size, value / 1e6)
    return made


@pytest.mark.parametrize(
    ("values", "exponent"),
    [((500, 500, 500), 0.0), ((10, 100, 1_000), 1.0), ((1, 100, 10_000), 2.0)],
)
def test_the_exponent_is_the_slope(values: tuple[float, ...], exponent: float) -> None:
    """Constant, linear, quadratic."""
    grown = curve(0, *zip((10, 100, 1_000), values, strict=True))

    assert grown.exponent == pytest.approx(exponent)


def test_a_cost_that_grows_faster_than_expected_misses_its_target() -> None:
    """Linear is too much where constant is expected."""
    assert curve(0, (10, 10), (1_000, 1_000)).figure().rating == "no"
    assert curve(1, (10, 10), (1_000, 1_000)).figure().rating == "yes"
    assert curve(0, (10, 100), (1_000, 120)).figure().rating == "yes"


def test_the_table_has_a_column_for_each_size() -> None:
    """A curve that ends earlier leaves a cell empty."""
    table = growth_table([curve(0, (10, 5), (100, 5)), curve(1, (10, 5))])

    assert table.splitlines()[0] == "| of | cost | 10 | 100 | exponent | expected |"
    assert table.splitlines()[-1] == "| rooms | a sync | 5 µs |  | 0.00 | 1 |"


def test_the_plot_names_its_curves(tmp_path: Path) -> None:
    """It is a picture that a browser shows."""
    pytest.importorskip("matplotlib")
    plot([curve(0, (10, 5), (100, 5))], tmp_path / "growth.svg")

    assert "<svg" in (tmp_path / "growth.svg").read_text()
