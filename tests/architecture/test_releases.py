"""Releases: the version, its changelog section, and the files that a wheel has to hold."""

import fnmatch
import re
import tomllib

import pytest

from homeserver.version import VERSION
from tests.architecture.source import PACKAGES, TOP

HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
RELEASED = re.compile(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d")


def faults_of_changelog(text: str, version: str) -> list[str]:
    """The faults of a changelog's headings, for a server of a version."""
    first, *rest = HEADING.findall(text)
    faults = [] if first == "[Unreleased]" else [f"the first section is {first}"]
    faults += [f"not a version and its date: {each}" for each in rest if not RELEASED.match(each)]
    if rest and not rest[0].startswith(f"[{version}]"):
        faults.append(f"the newest release is {rest[0]}, but the server is {version}")
    return faults


def test_changelog_and_version_agree() -> None:
    """The notes of a release are those of the version that it has."""
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")

    assert faults_of_changelog(changelog, VERSION) == []


@pytest.mark.parametrize(
    ("headings", "fault"),
    [
        (["[0.2.0] - 2026-12-01"], "the first section is [0.2.0] - 2026-12-01"),
        (["[Unreleased]", "0.2.0"], "not a version and its date: 0.2.0"),
        (
            ["[Unreleased]", "[0.1.0] - 2026-11-01"],
            "the newest release is [0.1.0] - 2026-11-01, but the server is 0.2.0",
        ),
    ],
)
def test_check_sees_a_wrong_changelog(headings: list[str], fault: str) -> None:
    """A check that looked for the wrong thing would find nothing."""
    text = "".join(f"## {heading}\n\n- something\n\n" for heading in headings)

    assert fault in faults_of_changelog(text, "0.2.0")


def test_wheel_holds_every_file_of_the_packages() -> None:
    """A server that was installed has its migrations and templates, as one in a checkout has."""
    setuptools = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = ["*.py", *setuptools["package-data"]["*"]]
    files = [
        path.relative_to(TOP)
        for package in PACKAGES
        for path in (TOP / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]

    left_out = [
        str(path)
        for path in files
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
    ]

    assert any(path.suffix == ".sql" for path in files)
    assert left_out == []
