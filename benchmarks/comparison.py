"""Two versions of the server measured in turn by the same load: `--compare COMMIT`.

The benchmarks of this checkout run against the server of the other commit and against the one of
this checkout, one after the other, several times. The speed of a shared machine changes from minute
to minute, and less within a pair, so the ratios are taken pair by pair.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.figures import Figure, number
from tests.support.program import CHECKOUT

Figures = dict[str, Figure]
HEADER = "| measure | before | after | after / before | of the pairs |"
RULE = "|---|---|---|---|---|"


def compare(
    commit: str, arguments: Sequence[str], pairs: int, report: Callable[[str], None]
) -> str:
    """A Markdown table of the figures before (at `commit`) and after (here), and their ratios.

    `arguments` are those of `python -m benchmarks` that name the parts. Raises CalledProcessError
    if there is no such commit, or if a run fails.
    """
    with checkout(commit) as before:
        runs: list[tuple[Figures, Figures]] = []
        for turn in range(pairs):
            report(f"pair {turn + 1} of {pairs}")
            runs.append((_measured(before, arguments), _measured(CHECKOUT, arguments)))
    return comparison_table(runs)


def comparison_table(runs: Sequence[tuple[Figures, Figures]]) -> str:
    """The medians before and after, the median of the pairs' ratios, and the extremes of these.

    A figure that a run lacks is left out, as is one that is 0 before.
    """
    names = [name for name in runs[0][1] if all(name in one for pair in runs for one in pair)]
    return "\n".join([HEADER, RULE, *(row for name in names for row in _row(name, runs))])


def _row(name: str, runs: Sequence[tuple[Figures, Figures]]) -> Iterator[str]:
    values = [(before[name].value, after[name].value) for before, after in runs]
    if not all(before for before, _ in values):
        return
    ratios = [after / before for before, after in values]
    medians = [statistics.median(column) for column in zip(*values, strict=True)]
    unit = runs[0][1][name].unit
    before, after = (f"{number(median)} {unit}" for median in medians)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    yield f"| {name} | {before} | {after} | {statistics.median(ratios):.2f} | {spread} |"


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit in a directory of their own, which other users can enter."""
    with tempfile.TemporaryDirectory(prefix="homeserver-") as directory:
        Path(directory).chmod(0o755)
        archive = subprocess.run(
            ["git", "archive", commit], cwd=CHECKOUT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x"], cwd=directory, input=archive.stdout, check=True)
        yield Path(directory)


def _measured(server: Path, arguments: Sequence[str]) -> Figures:
    """The figures of the server in a checkout, by name."""
    with tempfile.NamedTemporaryFile(suffix=".json") as results:
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments, "--json", results.name],
            cwd=CHECKOUT,
            env={**os.environ, "HOMESERVER_BENCHMARK_CHECKOUT": str(server)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows = [Figure(**row) for row in json.loads(Path(results.name).read_bytes())]
    return {row.name: row for row in rows}
