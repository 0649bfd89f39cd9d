"""Command lines in documents: finds those written as code, and checks that the commands exist."""

import argparse
import re
from collections.abc import Iterator

from homeserver.cli.main import build_parser
from tests.architecture.source import TOP

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?:    |\t)(.+)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
# `docker exec homeserver …` and the like name a container first.
PROGRAM = re.compile(
    r"(?<![\w.@:-])(?<!exec )homeserver (?!homeserver)(?=[a-z]|--version|--help)(.*)"
)
MAKE = re.compile(r"(?<![\w-])make ([a-z][a-z-]*)")


def code(markdown: str) -> Iterator[str]:
    """The parts of a Markdown text that are code: fences, indented lines and spans."""
    yield from FENCE.findall(markdown)
    rest = FENCE.sub("", markdown)
    yield from INDENTED.findall(rest)
    yield from SPAN.findall(rest)


def programs(text: str) -> Iterator[list[str]]:
    """The words after `homeserver` in each command line of a text."""
    for line in text.replace("\\\n", " ").splitlines():
        for found in PROGRAM.findall(line):
            yield re.split(r"[|;&>#]", found)[0].split()


def targets(text: str) -> list[str]:
    """The targets of `make` that a text names."""
    return MAKE.findall(text)


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def unknown_word(words: list[str]) -> str | None:
    """The first command or option that `homeserver` does not have, if there is one."""
    parser = build_parser()
    for word in (word.strip("[]()") for word in words):
        choices = _commands(parser)
        if word.startswith("-"):
            if word.split("=")[0] not in parser._option_string_actions:
                return word
        elif choices is not None:
            if word not in choices:
                return word
            parser = choices[word]
    return None


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser] | None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return None
