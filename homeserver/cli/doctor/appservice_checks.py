"""Checks of application services: their files, their namespaces, and whether they can be reached.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from homeserver.cli.appservices.commands import registrations
from homeserver.cli.appservices.reachability import Reachability
from homeserver.cli.doctor.findings import Finding, Severity, ok, problem, warning
from homeserver.cli.plain_text import plain
from homeserver.cli.running_postgres import find_running
from homeserver.config.errors import ConfigError
from homeserver.config.hints import shell_command
from homeserver.config.settings import Settings
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.storage.accounts.users import all_names

SUBJECT = "application services"
ANYBODY = "@a-name-that-nobody-has"
MAX_NAMED = 5  # accounts
NARROW_IT = "narrow the regular expression, such as '@_irc_.*:example\\.org'"


def check_registrations(settings: Settings) -> Iterator[Finding]:
    """Check the registration files, and their namespaces against each other and the accounts."""
    try:
        registered = registrations(settings)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield problem(SUBJECT, line, "correct the file; see docs/appservices.md")
        return
    if not registered:
        return
    findings = [
        *(finding for path, each in registered for finding in _check_file(path, each)),
        *(finding for _, each in registered for finding in _check_namespaces(each, settings)),
        *_check_senders([each for _, each in registered]),
        *_check_accounts([each for _, each in registered], settings),
    ]
    names = ", ".join(plain(each.id) for _, each in registered)
    yield from findings or [ok(SUBJECT, f"{names}: files and namespaces are in order")]


def to_be_reached(settings: Settings) -> list[Appservice]:
    """The application services that this server sends requests to; none if a file is wrong."""
    try:
        return [each for _, each in registrations(settings) if each.url is not None]
    except ConfigError:
        return []


async def check_reachable(
    reactor: Any, settings: Settings, appservices: Sequence[Appservice]
) -> list[Finding]:
    """Ping application services, one after the other."""
    reachability = Reachability(reactor, settings)
    findings = []
    try:
        for each in appservices:
            outcome = await reachability.check(each)
            severity = Severity.OK if outcome.is_reached else Severity.PROBLEM
            text = f"{plain(each.id)}: {outcome.text}"
            findings.append(Finding(severity, SUBJECT, text, outcome.fix))
    finally:
        await reachability.stop()
    return findings


def _check_file(path: Path, registered: Appservice) -> Iterator[Finding]:
    if path.stat().st_mode & stat.S_IROTH:
        yield warning(
            SUBJECT,
            f"every user of this machine can read the tokens of {plain(registered.id)} in {path}",
            shell_command("chmod", "o-r", path),
        )


def _check_namespaces(registered: Appservice, settings: Settings) -> Iterator[Finding]:
    name = plain(registered.id)
    for each in registered.users.namespaces:
        regex = plain(each.regex.pattern)
        if each.covers(f"{ANYBODY}:{settings.server_name}"):
            if each.exclusive:
                text = f"{name} reserves all user names of this server by {regex!r}"
                yield problem(SUBJECT, text, f"{NARROW_IT}, or set `exclusive: false`")
            elif registered.url is not None:
                text = f"{name} covers all users of this server by {regex!r}"
                yield warning(SUBJECT, text, NARROW_IT)


def _check_senders(registered: Sequence[Appservice]) -> Iterator[Finding]:
    """Check that no application service has the own user, or the namespace, of another."""
    for number, one in enumerate(registered):
        for other in registered[number + 1 :]:
            both = f"{plain(one.id)} and {plain(other.id)}"
            if one.owns_user(other.sender) or other.owns_user(one.sender):
                yield problem(
                    SUBJECT,
                    f"{both}: the user of one is in an exclusive namespace of the other",
                    "change sender_localpart, or narrow the regular expression",
                )
            regexes = {each.regex.pattern for each in one.users.namespaces if each.exclusive}
            for each in other.users.namespaces:
                if each.exclusive and each.regex.pattern in regexes:
                    regex = plain(each.regex.pattern)
                    text = f"{both} both reserve the users {regex!r}"
                    yield problem(SUBJECT, text, "give each a namespace of its own")


def _check_accounts(registered: Sequence[Appservice], settings: Settings) -> Iterator[Finding]:
    """Check that no account of a person, or of another one, is in an exclusive namespace."""
    dsn = settings.database.dsn or find_running(settings.postgres_dir)
    if dsn is None:
        return
    clashes: dict[tuple[str, str | None], list[str]] = {}
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            for user_id, maker in all_names(connection):
                for each in registered:
                    if maker != each.id and each.owns_user(user_id):
                        clashes.setdefault((each.id, maker), []).append(user_id)
    except psycopg.Error:
        return  # the checks of the database have reported it
    for (appservice_id, maker), user_ids in clashes.items():
        named = ", ".join(plain(user_id) for user_id in user_ids[:MAX_NAMED])
        more = f" and {len(user_ids) - MAX_NAMED:,} more" if len(user_ids) > MAX_NAMED else ""
        whose = "people" if maker is None else f"the application service {plain(maker)}"
        yield warning(
            SUBJECT,
            f"{plain(appservice_id)} reserves names of {whose}: {named}{more}",
            "narrow the regular expression: the application service can act as these users",
        )
