"""Findings of `homeserver doctor`: one line each, with a suggested fix for errors."""

from enum import Enum

import msgspec


class Severity(Enum):
    """The severity of a finding; a `PROBLEM` keeps the server from working as configured."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """The result of one check; `fix` says what to do about it."""

    severity: Severity
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.severity.value:<8} {self.subject}: {self.text}"
        return f"{line}\n         -> {self.fix}" if self.fix else line


def ok(subject: str, text: str) -> Finding:
    """A finding that all is well."""
    return Finding(Severity.OK, subject, text)


def warning(subject: str, text: str, fix: str) -> Finding:
    """A finding that the operator should know, although the server works."""
    return Finding(Severity.WARNING, subject, text, fix)


def problem(subject: str, text: str, fix: str) -> Finding:
    """A finding of something that does not work until it is fixed."""
    return Finding(Severity.PROBLEM, subject, text, fix)
