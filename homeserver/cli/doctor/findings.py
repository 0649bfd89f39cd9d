"""What `homeserver doctor` finds: one verdict a line, and how to mend what is not right."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How things stand; a `PROBLEM` keeps the server from working as configured."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one subject, with `fix` saying what to do about it."""

    verdict: Severity
    subject: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict.value:<8} {self.subject}: {self.text}"
        return f"{line}\n         -> {self.fix}" if self.fix else line


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(Severity.OK, subject, text)


def warning(subject: str, text: str, mend: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(Severity.WARNING, subject, text, mend)


def problem(subject: str, text: str, mend: str) -> Finding:
    """It does not work until this is mended."""
    return Finding(Severity.PROBLEM, subject, text, mend)
