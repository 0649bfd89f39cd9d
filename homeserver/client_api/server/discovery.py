"""Discovery: where this server is reached, and whom to turn to about it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#well-known-uris
"""

from typing import Any

from homeserver.config.support import Contact, Support
from homeserver.protocol.errors import NotFound
from homeserver.web.routes import Auth, Route


def client_discovery(public_baseurl: str) -> dict[str, Any]:
    """What clients learn of this server, from `/.well-known` and at log-in."""
    return {"m.homeserver": {"base_url": public_baseurl}}


class DiscoveryApi:
    def __init__(
        self, public_baseurl: str | None, delegated_to: str | None, support: Support
    ) -> None:
        self._public_baseurl = public_baseurl
        self._delegated_to = delegated_to
        self._support = support

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/.well-known/matrix/client", self.get_wellknown, auth=Auth.NONE),
            Route("GET", "/.well-known/matrix/server", self.get_well_known, auth=Auth.NONE),
            Route("GET", "/.well-known/matrix/support", self.get_wellknown_support, auth=Auth.NONE),
        ]

    def get_wellknown(self) -> dict[str, Any]:
        """Where clients reach this server."""
        if self._public_baseurl is None:
            raise NotFound("This server does not say where it is reached")
        return client_discovery(self._public_baseurl)

    def get_well_known(self) -> dict[str, str]:
        """Where other servers reach this server."""
        if self._delegated_to is None:
            raise NotFound("This server does not say where other servers reach it")
        return {"m.server": self._delegated_to}

    def get_wellknown_support(self) -> dict[str, Any]:
        """Whom to turn to."""
        told: dict[str, Any] = {}
        if self._support.contacts:
            told["contacts"] = [_described(contact) for contact in self._support.contacts]
        if self._support.support_page is not None:
            told["support_page"] = self._support.support_page
        if not told:
            raise NotFound("This server names nobody to turn to")
        return told


def _described(contact: Contact) -> dict[str, str]:
    members = {
        "role": contact.role,
        "matrix_id": contact.matrix_id,
        "email_address": contact.email_address,
    }
    return {name: value for name, value in members.items() if value is not None}
