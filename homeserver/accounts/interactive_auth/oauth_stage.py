"""The stage `m.oauth`: the user permits the operation on a page of this server.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-authentication
"""

from collections.abc import Mapping
from typing import Any

from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.interactive_auth.user_interactive_auth import StageFailed
from homeserver.protocol.oauth.server_metadata import cross_signing_reset_page


class OAuthStage:
    """The permission to replace the cross-signing keys. Proves that it was given.

    `type` is the specified name of the stage, or that of the proposal.
    """

    def __init__(self, type_: str, public_baseurl: str, resets: CrossSigningReset) -> None:
        self.type = type_
        self._url = cross_signing_reset_page(public_baseurl)
        self._resets = resets

    def params(self) -> Mapping[str, Any]:
        return {"url": self._url}

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        if user_id is None or not await self._resets.is_allowed(user_id):
            raise StageFailed("The user has not permitted this on the page yet")
        return True
