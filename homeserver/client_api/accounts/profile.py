"""Profiles over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.profiles import (
    AVATAR_URL,
    DISPLAYNAME,
    Profiles,
    check_may_change,
)
from homeserver.protocol.errors import MissingParam, NotFound
from homeserver.protocol.proposals.unstable_names import PROFILE_FIELD
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

PROFILE = "/_matrix/client/v3/profile/{user_id}"


class ProfileApi:
    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def routes(self) -> list[Route]:
        routes = [Route("GET", PROFILE, self.get_user_profile, auth=Auth.NONE, limit="lookup")]
        for field in (f"{PROFILE}/{{key_name}}", PROFILE_FIELD):
            routes += [
                Route("GET", field, self.get_profile_field, auth=Auth.NONE, limit="lookup"),
                Route("PUT", field, self.set_profile_field, auth=Auth.GUEST, limit="profile"),
                Route("DELETE", field, self.delete_profile_field, auth=Auth.GUEST, limit="profile"),
            ]
        return routes

    async def get_user_profile(self, user_id: str, request: Request) -> dict[str, msgspec.Raw]:
        """A whole profile."""
        profile = await self._profiles.get(user_id, None, network_of(request.address))
        return {field: msgspec.Raw(value) for field, value in profile.items()}

    async def get_profile_field(
        self, user_id: str, key_name: str, request: Request
    ) -> dict[str, msgspec.Raw]:
        """One field of a profile."""
        profile = await self._profiles.get(user_id, key_name, network_of(request.address))
        # Clients expect the two oldest fields to be absent from the response where they are not
        # set.
        if key_name not in profile and key_name not in (DISPLAYNAME, AVATAR_URL):
            raise NotFound("The profile has no such field")
        return {field: msgspec.Raw(value) for field, value in profile.items()}

    async def set_profile_field(
        self, caller: Requester, user_id: str, key_name: str, body: dict[str, Any]
    ) -> None:
        """Set a field of the caller's profile."""
        check_may_change(caller, user_id, key_name)
        if key_name not in body:
            raise MissingParam(f"The member {key_name} is missing")
        await self._profiles.set_field(user_id, key_name, body[key_name])

    async def delete_profile_field(self, caller: Requester, user_id: str, key_name: str) -> None:
        """Remove a field of the caller's profile."""
        check_may_change(caller, user_id, key_name)
        await self._profiles.remove_field(user_id, key_name)
