"""Checks of documents: their links lead to pages, and the paths that they name exist."""

import re
from pathlib import Path

import yaml

from tests.architecture.source import PACKAGES, TOP

SPEC = "https://spec.matrix.org/"
VERSION = f"{SPEC}v1.19/"
# Pages and sections of v1.19 of the specification: one `page` or `page#section` a line.
SECTIONS = set((Path(__file__).parent / "spec_sections.txt").read_text("utf-8").split())
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")


def _files() -> list[Path]:
    folders = [TOP / folder for folder in (*PACKAGES, "tests", "benchmarks", "docs")]
    found = [
        path
        for folder in folders
        for suffix in ("py", "sql", "md")
        for path in folder.rglob(f"*.{suffix}")
        if "node_modules" not in path.parts
    ]
    return found + sorted(TOP.glob("*.md"))


def _documents() -> list[Path]:
    return [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")]


def test_links_into_the_specification_lead_somewhere() -> None:
    """A developer can read the paragraph behind a rule, in the version that is implemented."""
    wrong = []
    for path in _files():
        for link in re.findall(rf"{re.escape(SPEC)}[^\s)\"'`>]*", path.read_text("utf-8")):
            page, _, section = link.rstrip(".,;:").removeprefix(VERSION).partition("#")
            target = page.rstrip("/") + (f"#{section}" if section else "")
            if not link.startswith(VERSION) or (target and target not in SECTIONS):
                wrong.append(f"{path.relative_to(TOP)}: {link}")

    # The constant SPEC of this test is not a link.
    assert [link for link in wrong if not link.endswith(f": {SPEC}")] == []


def test_links_between_documents_lead_somewhere() -> None:
    """A reader who follows a link finds a page."""
    broken = [
        f"{path.relative_to(TOP)}: {target}"
        for path in _documents()
        for target, _ in LINK.findall(path.read_text("utf-8"))
        if target and not (path.parent / target).exists()
    ]

    assert broken == []


def test_paths_that_documents_name_exist() -> None:
    """The documents name only folders and files that exist."""
    named = re.compile(
        r"`((?:homeserver|federation|appservices|docs|tests|tools|benchmarks|packaging)/[\w./]+)`"
    )

    missing = [
        f"{path.relative_to(TOP)}: {name}"
        for path in _documents()
        for name in named.findall(path.read_text("utf-8"))
        if not (TOP / name).exists()
    ]

    assert missing == []


def test_every_page_is_in_both_lists() -> None:
    """Readers find no page that is missing in docs/README.md or in the menu of the site."""
    pages = {path.name for path in TOP.glob("docs/*.md")} - {"README.md"}
    listed = {target for target, _ in LINK.findall((TOP / "docs/README.md").read_text("utf-8"))}
    menu = yaml.safe_load((TOP / "mkdocs.yml").read_text("utf-8"))["nav"]
    in_menu = {page for group in menu if isinstance(group, dict) for page in _only(group)}

    assert sorted(pages - listed) == []
    assert sorted(pages - in_menu) == []
    # The menu also has the documents of the top folder, by the names that the site gives them.
    assert sorted(name for name in in_menu - pages if not (TOP / name).exists()) == []


def _only(group: dict[str, list[str]]) -> list[str]:
    [pages] = group.values()
    return pages
