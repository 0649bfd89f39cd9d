"""Discovery: the addresses of this server, and its support contacts.

Spec: https://spec.matrix.org/v1.19/client-server-api/#well-known-uris
"""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.config.sections.support import Contact, Support
from homeserver.protocol.errors import NotFound
from homeserver.protocol.proposals.unstable_names import RTC_FOCI
from homeserver.web.routes import Auth, Route


def client_discovery(public_baseurl: str) -> dict[str, Any]:
    """The discovery information for clients, in `/.well-known` and in log-in responses."""
    return {"m.homeserver": {"base_url": public_baseurl}}


class DiscoveryApi:
    def __init__(
        self,
        public_baseurl: str | None,
        delegated_to: str | None,
        support: Support,
        rtc_transports: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._rtc_transports = rtc_transports
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
        """The base URL for clients, and the transports of calls."""
        if self._public_baseurl is None:
            raise NotFound("This server publishes no base URL")
        discovery = client_discovery(self._public_baseurl)
        if self._rtc_transports:
            discovery[RTC_FOCI] = self._rtc_transports
        return discovery

    def get_well_known(self) -> dict[str, str]:
        """The server name that other servers connect to."""
        if self._delegated_to is None:
            raise NotFound("This server publishes no delegation")
        return {"m.server": self._delegated_to}

    def get_wellknown_support(self) -> dict[str, Any]:
        """The support contacts and page."""
        support: dict[str, Any] = {}
        if self._support.contacts:
            support["contacts"] = [_described(contact) for contact in self._support.contacts]
        if self._support.support_page is not None:
            support["support_page"] = self._support.support_page
        if not support:
            raise NotFound("This server publishes no support contacts")
        return support


def _described(contact: Contact) -> dict[str, str]:
    members = {
        "role": contact.role,
        "matrix_id": contact.matrix_id,
        "email_address": contact.email_address,
    }
    return {name: value for name, value in members.items() if value is not None}
