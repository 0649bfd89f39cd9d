"""The comparison of two versions of the server by the benchmarks."""

import subprocess

import pytest

from benchmarks.comparison import checkout, comparison_table
from benchmarks.load.figures import Figure
from tests.support.program import CHECKOUT


def figures(**values: float) -> dict[str, Figure]:
    """Figures by name."""
    return {name: Figure(name, value, "ms") for name, value in values.items()}


def test_ratios_are_taken_pair_by_pair() -> None:
    """A minute in which the machine is slow changes both runs of a pair, and no ratio."""
    table = comparison_table(
        [
            (figures(sync=10), figures(sync=5)),
            (figures(sync=100), figures(sync=50)),
            (figures(sync=10), figures(sync=6)),
        ]
    )

    assert table.splitlines()[2:] == ["| sync | 10.0 ms | 6 ms | 0.50 | 0.50 to 0.60 |"]


def test_a_figure_of_one_version_only_is_left_out() -> None:
    """An older server may not have the feature, and nothing can be divided by zero."""
    runs = [(figures(a=1, b=0), figures(a=2, b=1, c=1)), (figures(a=1), figures(a=2, b=1))]

    assert comparison_table(runs).splitlines()[2:] == ["| a | 1 ms | 2 ms | 2.00 | 2.00 to 2.00 |"]


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not in a git checkout")
def test_the_files_of_a_commit_are_checked_out() -> None:
    """The other version is complete, beside this one, and gone afterwards."""
    with checkout("HEAD") as directory:
        assert (directory / "homeserver" / "__main__.py").exists()
    assert not directory.exists()


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not in a git checkout")
def test_an_unknown_commit_is_an_error() -> None:
    """Nothing is measured against nothing."""
    with pytest.raises(subprocess.CalledProcessError), checkout("no-such-commit"):
        pass
