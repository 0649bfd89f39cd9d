"""Capabilities: the optional features of this server for a user.

Spec: https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.config.sections.calls import DelayedEventSettings
from homeserver.protocol.proposals.unstable_names import DELAYED_EVENTS_CAPABILITY
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.web.routes import Auth, Route


class CapabilitiesApi:
    """`can_confirm`: users have passwords, or sign in at an identity provider."""

    def __init__(
        self,
        default_room_version: str,
        delayed_events: DelayedEventSettings,
        *,
        with_password: bool,
        can_confirm: bool,
        with_third_party_ids: bool,
    ) -> None:
        self._delayed_events = {
            "max_delay_ms": delayed_events.max_delay * 1000,
            "max_scheduled": delayed_events.max_scheduled,
        }
        self._default_room_version = default_room_version
        self._with_password = with_password
        self._can_confirm = can_confirm
        self._with_third_party_ids = with_third_party_ids

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/capabilities"
        return [Route("GET", path, self.get_capabilities, auth=Auth.GUEST, limit="lookup")]

    def get_capabilities(self, caller: Requester) -> dict[str, Any]:
        """The capabilities of the caller."""
        may_change = {"enabled": not caller.is_guest}
        # A client of the OAuth 2.0 API cannot authenticate its user for the rest.
        may_confirm = not caller.is_guest and not caller.is_oauth
        capabilities: dict[str, Any] = {
            "m.change_password": {"enabled": self._with_password and may_confirm},
            "m.room_versions": {
                "default": self._default_room_version,
                "available": {
                    identifier: "stable" if version.stable else "unstable"
                    for identifier, version in ROOM_VERSIONS.items()
                },
            },
            "m.profile_fields": {"enabled": True, "allowed": ["displayname"]}
            if caller.is_guest
            else {"enabled": True},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": may_change,
            "m.3pid_changes": {"enabled": self._with_third_party_ids and may_confirm},
            "m.get_login_token": {"enabled": self._can_confirm and may_confirm},
            "m.forget_forced_upon_leave": {"enabled": False},
            "m.delayed_events": self._delayed_events,
            DELAYED_EVENTS_CAPABILITY: self._delayed_events,
        }
        if caller.is_admin:
            capabilities["m.account_moderation"] = {"suspend": True, "lock": True}
        return {"capabilities": capabilities}
