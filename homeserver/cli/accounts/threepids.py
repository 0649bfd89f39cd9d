"""`homeserver user add-threepid | remove-threepid | list-threepids`: addresses of accounts.

Addresses that an administrator adds count as validated: the user can log in with them and, if it is
an e-mail address, reset the password with it.
"""

import argparse
import time
from datetime import UTC, datetime

from homeserver.accounts.registration.administration import (
    add_third_party_id,
    list_third_party_ids,
    remove_third_party_id,
)
from homeserver.cli.cli_context import CliContext, Work
from homeserver.cli.errors import CommandError
from homeserver.protocol.third_party_ids.addresses import (
    EMAIL,
    MSISDN,
    InvalidThirdPartyId,
    canonical_email,
    canonical_msisdn,
)
from homeserver.protocol.third_party_ids.phone_numbers import parse_phone_number

THREEPID_ACTIONS = ("add-threepid", "remove-threepid", "list-threepids")


def plan_threepids(options: argparse.Namespace, user_id: str) -> Work:
    """The work on the addresses of a user. Raises `CommandError`."""
    if options.action == "list-threepids":
        return _listing(user_id)
    medium, address = _address(options)
    if options.action == "add-threepid":
        return _addition(user_id, medium, address)
    return _removal(user_id, medium, address)


def _address(options: argparse.Namespace) -> tuple[str, str]:
    """The medium and the canonical address."""
    try:
        if options.email is not None:
            return EMAIL, canonical_email(options.email)
        if options.country is not None:
            return MSISDN, parse_phone_number(options.country, options.phone)
        if not options.phone.startswith("+"):
            raise CommandError("begin the number with + and the country code, or give --country")
        return MSISDN, canonical_msisdn("".join(filter(str.isdigit, options.phone)))
    except InvalidThirdPartyId as error:
        raise CommandError(f"{options.email or options.phone}: {error}") from None


def _addition(user_id: str, medium: str, address: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        now_ms = int(time.time() * 1000)
        await add_third_party_id(at.db, user_id, medium, address, now_ms=now_ms)
        return [f"Added {medium} {address} to {user_id}"]

    return work


def _removal(user_id: str, medium: str, address: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        await remove_third_party_id(at.db, user_id, medium, address)
        return [f"Removed {medium} {address} from {user_id}"]

    return work


def _listing(user_id: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        found = [
            f"{one.medium:<7} {one.address:<40} "
            f"{datetime.fromtimestamp(one.added_ms / 1000, tz=UTC).date().isoformat()}"
            for one in await list_third_party_ids(at.db, user_id)
        ]
        return found or [f"{user_id} has no addresses"]

    return work
