"""Commands in documents: each exists, with the options that are named."""

import re
from pathlib import Path

import pytest
import yaml

from tests.architecture.commands import SPAN, code, make_targets, programs, targets, unknown_word
from tests.architecture.source import TOP

DOCUMENTS = [
    *sorted(TOP.glob("*.md")),
    *sorted(TOP.glob("docs/**/*.md")),
    *sorted(TOP.glob(".github/**/*.*")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_commands_of_documents_exist(path: Path) -> None:
    """An operator copies a command from a document, and it works."""
    text = path.read_text("utf-8")
    parts = [*code(text)] if path.suffix == ".md" else SPAN.findall(text)

    unknown = [
        f"homeserver {' '.join(words)}: {word}"
        for part in parts
        for words in programs(part)
        if (word := unknown_word(words)) is not None
    ]
    missing = [name for part in parts for name in targets(part) if name not in make_targets()]

    assert (unknown, missing) == ([], [])


def test_check_sees_a_wrong_command() -> None:
    """A check that looked for the wrong thing would find nothing."""
    text = "Run `homeserver doctor --repair`.\n\n    homeserver user ad --admin NAME\n"

    words = [line for part in code(text) for line in programs(part)]

    assert sorted(words) == [["doctor", "--repair"], ["user", "ad", "--admin", "NAME"]]
    assert [unknown_word(line) for line in sorted(words)] == [None, "ad"]
    assert unknown_word(["run", "[--workers", "4]"]) == "--workers"
    assert [*programs("docker exec homeserver homeserver dokter")] == [["dokter"]]


def test_documents_that_issue_forms_name_exist() -> None:
    """A user who is sent to a page before reporting finds it."""
    forms = "\n".join(path.read_text("utf-8") for path in TOP.glob(".github/ISSUE_TEMPLATE/*.yml"))

    named = set(re.findall(r"\b(?:docs/)?[\w-]+\.md\b", forms))

    assert {"SECURITY.md", "docs/troubleshooting.md"} <= named
    assert [name for name in sorted(named) if not (TOP / name).exists()] == []


def test_hooks_run_what_make_runs() -> None:
    """The hooks of a commit and `make test` run the same tools of the same environment."""
    hooks = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text("utf-8"))
    makefile = (TOP / "Makefile").read_text("utf-8").replace("$(BIN)", ".venv/bin")
    recipes = {line.strip().removesuffix(" .") for line in makefile.splitlines()}

    entries = [
        hook["entry"].removesuffix(" --force-exclude")
        for repository in hooks["repos"]
        for hook in repository["hooks"]
    ]

    assert len(entries) == 3
    assert [entry for entry in entries if entry not in recipes] == []
