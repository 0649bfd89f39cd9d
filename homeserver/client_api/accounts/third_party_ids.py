"""The addresses of the caller's account over the API, and publishing them at identity servers.

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from typing import Any, Literal

import msgspec

from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
    check_not_oauth,
)
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.third_party_ids.identity_bindings import IdentityBindings
from homeserver.accounts.third_party_ids.third_party_ids import ThirdPartyIds, canonical
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.web.routes import Route

# The second is the path before it was specified, which some clients still use.
BASES = ("/_matrix/client/v3/account/3pid", "/_matrix/client/unstable/account/3pid")


class Add3PID(Confirmable):
    client_secret: str
    sid: str


class Post3PIDs(msgspec.Struct):
    three_pid_creds: ThreepidCredentials


class Bind3PID(msgspec.Struct):
    client_secret: str
    id_server: str
    id_access_token: str
    sid: str


class Remove3PID(msgspec.Struct):
    medium: Literal["email", "msisdn"]
    address: str
    id_server: str | None = None


class ThirdPartyIdsApi:
    def __init__(
        self, ids: ThirdPartyIds, bindings: IdentityBindings, uia: UserInteractiveAuth
    ) -> None:
        self._ids = ids
        self._bindings = bindings
        self._uia = uia

    def routes(self) -> list[Route]:
        v3, _ = BASES
        moved = [
            route
            for base in BASES
            for route in (
                Route("POST", f"{base}/bind", self.bind_3pid, limit="validation"),
                Route("POST", f"{base}/unbind", self.unbind_3pid_from_account, limit="validation"),
            )
        ]
        return [
            Route("GET", v3, self.get_account_3pids),
            Route("POST", v3, self.post_3pids, limit="login"),
            Route("POST", f"{v3}/add", self.add_3pid, limit="login"),
            Route("POST", f"{v3}/delete", self.delete_3pid_from_account, limit="login"),
            *moved,
        ]

    async def get_account_3pids(self, caller: Requester) -> dict[str, Any]:
        """The addresses of the caller's account."""
        threepids = [
            {
                "medium": one.medium,
                "address": one.address,
                "validated_at": one.validated_ms,
                "added_at": one.added_ms,
            }
            for one in await self._ids.all_of(caller.user_id)
        ]
        return {"threepids": threepids}

    async def post_3pids(self, caller: Requester, body: Post3PIDs) -> None:
        """Add a validated address; the old form, without confirmation."""
        check_not_oauth(caller)
        await self._ids.add(caller, body.three_pid_creds)

    async def add_3pid(self, caller: Requester, body: Add3PID) -> None:
        """Add a validated address."""
        check_not_oauth(caller)
        credentials = ThreepidCredentials(body.sid, body.client_secret)
        await self._ids.check_addable(caller, credentials)
        confirmed = await self._uia.confirm("add3PID", caller, body)
        await self._ids.add(caller, ThreepidCredentials(confirmed.sid, confirmed.client_secret))

    async def bind_3pid(self, caller: Requester, body: Bind3PID) -> None:
        """Publish an address at an identity server."""
        credentials = ThreepidCredentials(body.sid, body.client_secret)
        await self._bindings.bind(caller.user_id, body.id_server, body.id_access_token, credentials)

    async def delete_3pid_from_account(self, caller: Requester, body: Remove3PID) -> dict[str, str]:
        """Remove an address from the account, and from the identity server that publishes it."""
        address = await self._ids.remove(caller, body.medium, body.address)
        is_unbound = await self._bindings.unbind_quietly(
            caller.user_id, body.medium, address, body.id_server
        )
        return unbind_result(is_unbound)

    async def unbind_3pid_from_account(self, caller: Requester, body: Remove3PID) -> dict[str, str]:
        """Remove an address from an identity server only."""
        address = canonical(body.medium, body.address)
        is_unbound = await self._bindings.unbind(
            caller.user_id, body.medium, address, body.id_server
        )
        return unbind_result(is_unbound)


def unbind_result(is_unbound: bool) -> dict[str, str]:
    """The result of unbinding an address from identity servers."""
    return {"id_server_unbind_result": "success" if is_unbound else "no-support"}
