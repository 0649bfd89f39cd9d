"""Users and aliases that an application service creates when they are asked for.

A name in the namespace of an application service may belong to a user or a channel of its network
that this server does not know yet. Before an operation fails for that reason, these ports ask the
application service, which creates the user or the alias while it is being asked.

Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
"""

from typing import Protocol

import msgspec

from homeserver.accounts.sessions.requester import Requester

Party = Requester | str
"""Who needs the user or the alias: a caller, the name of a server, or an IP address."""


class Provision(Protocol):
    """Asks the application services for an unknown local user, or for an unknown local alias."""

    async def __call__(self, name: str, party: Party) -> None:
        """Have `name` created, if it does not exist and an application service can be asked.

        Raises `NotFound` if it does not exist there either, `RequestTimeout` if there was no
        answer, and `LimitExceeded` if `party` asks for too many. Does nothing for all other names.
        """


async def ask_nobody(name: str, party: Party) -> None:
    """A `Provision` without application services."""


class Provisioning(msgspec.Struct, frozen=True):
    """The ports for both kinds of names."""

    user: Provision
    alias: Provision


NO_PROVISIONING = Provisioning(ask_nobody, ask_nobody)
