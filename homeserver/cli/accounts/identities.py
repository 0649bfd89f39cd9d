"""`homeserver user link-identity | unlink-identity | list-identities`: how accounts sign in."""

import argparse
import time
from datetime import UTC, datetime

from homeserver.accounts.single_sign_on.administration import (
    link_identity,
    list_identities,
    unlink_identity,
)
from homeserver.cli.cli_context import CliContext, Work
from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.config.settings import Settings
from homeserver.protocol.single_sign_on.claims import MAX_SUBJECT

IDENTITY_ACTIONS = ("link-identity", "unlink-identity", "list-identities")


def plan_identities(options: argparse.Namespace, settings: Settings, user_id: str) -> Work:
    """The work on the identities of a user. Raises `CommandError`."""
    if options.action == "list-identities":
        return _listing(user_id)
    provider, subject = options.provider, options.subject
    if options.action == "unlink-identity":
        return _removal(user_id, provider, subject)
    known = [each.id for each in settings.single_sign_on.providers]
    if provider not in known:
        raise CommandError(
            f"there is no identity provider {provider!r}. single_sign_on.providers has: "
            + (", ".join(known) or "none")
        )
    if not subject or len(subject.encode()) > MAX_SUBJECT:
        raise CommandError(f"a subject has 1 to {MAX_SUBJECT} bytes")
    return _addition(user_id, provider, subject)


def _addition(user_id: str, provider: str, subject: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        now_ms = int(time.time() * 1000)
        await link_identity(at.db, user_id, provider, subject, now_ms=now_ms)
        return [f"{user_id} can sign in as {subject} at {provider}"]

    return work


def _removal(user_id: str, provider: str, subject: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        await unlink_identity(at.db, user_id, provider, subject)
        return [f"{user_id} can no longer sign in as {subject} at {provider}"]

    return work


def _listing(user_id: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        found = [
            f"{one.provider:<20} {plain(one.subject):<40} "
            f"{datetime.fromtimestamp(one.added_ms / 1000, tz=UTC).date().isoformat()}"
            for one in await list_identities(at.db, user_id)
        ]
        return found or [f"{user_id} has no identities"]

    return work
