"""`homeserver report list`: the reports of users, on a running or a stopped server."""

import argparse
from datetime import UTC, datetime
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.moderation.reports import describe_target
from homeserver.storage.rooms.reports import Report, reports_after


def report(options: argparse.Namespace) -> int:
    """Print all reports, oldest first; returns the exit status."""
    settings = load_installed(options.config)
    for line in run_in_reactor(lambda reactor: _lines(reactor, settings)):
        print(line)
    return 0


async def _lines(reactor: Any, settings: Settings) -> list[str]:
    lines: list[str] = []
    after = 0
    async with open_database(reactor, settings) as db:
        while page := await db.run(reports_after, after):
            lines += [_describe(report) for report in page]
            after = page[-1].id
    return lines or ["There are no reports."]


def _describe(report: Report) -> str:
    """A report on one line. The reason is quoted, so that it cannot look like another line."""
    at = datetime.fromtimestamp(report.reported_ms / 1000, tz=UTC)
    reason = f": {report.reason!r}" if report.reason else ""
    return f"{at:%Y-%m-%d %H:%M} {report.reporter} reported {describe_target(report)}{reason}"
