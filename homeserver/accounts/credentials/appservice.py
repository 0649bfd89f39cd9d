"""The part of application services that accounts use: their tokens and their users.

Spec: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
"""

from collections.abc import Callable
from typing import Protocol

from homeserver.protocol.errors import MissingToken, UnknownToken


class Appservice(Protocol):
    """A registered application service."""

    @property
    def id(self) -> str:
        """Its unique id."""

    def covers_user(self, user_id: str) -> bool:
        """Whether a user is in one of its namespaces, or is its own sender."""


FindAppservice = Callable[[str], Appservice | None]  # by its `as_token`


def require_appservice(find: FindAppservice | None, token: str | None) -> Appservice:
    """The application service of a token. Raises `MissingToken` and `UnknownToken`."""
    if token is None:
        raise MissingToken("An application service has to send its token")
    service = find(token) if find is not None else None
    if service is None:
        raise UnknownToken("Not the token of an application service")
    return service
