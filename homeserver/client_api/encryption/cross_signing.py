"""Cross-signing keys and signatures over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from typing import Any

from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
)
from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.cross_signing import ConfirmationNeeded, CrossSigning
from homeserver.encryption.key_signatures import KeySignatures
from homeserver.encryption.user_devices import MASTER, SELF_SIGNING, USER_SIGNING
from homeserver.web.routes import Route

OPERATION = "uploadCrossSigningKeys"
# Clients use the form from before the keys were specified, too.
BASES = ("/_matrix/client/v3/keys", "/_matrix/client/unstable/keys")


class UploadCrossSigningKeys(Confirmable):
    """The keys that a user uploads; each may be absent."""

    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None
    user_signing_key: dict[str, Any] | None = None

    def keys(self) -> dict[str, dict[str, Any]]:
        """The keys by usage."""
        given = (
            (MASTER, self.master_key),
            (SELF_SIGNING, self.self_signing_key),
            (USER_SIGNING, self.user_signing_key),
        )
        return {usage: key for usage, key in given if key is not None}


class CrossSigningApi:
    """`resets` are the permissions that users give on a page, where there is one."""

    def __init__(
        self,
        cross_signing: CrossSigning,
        signatures: KeySignatures,
        uia: UserInteractiveAuth,
        resets: CrossSigningReset | None,
    ) -> None:
        self._cross_signing = cross_signing
        self._resets = resets
        self._signatures = signatures
        self._uia = uia

    def routes(self) -> list[Route]:
        keys = [
            Route(
                "POST",
                f"{base}/device_signing/upload",
                self.upload_cross_signing_keys,
                limit="keys",
            )
            for base in BASES
        ]
        signatures = [
            Route(
                "POST",
                f"{base}/signatures/upload",
                self.upload_cross_signing_signatures,
                limit="keys",
            )
            for base in BASES
        ]
        return keys + signatures

    async def upload_cross_signing_keys(
        self, caller: Requester, body: UploadCrossSigningKeys
    ) -> None:
        """Store cross-signing keys of the caller, who must authenticate to replace some."""
        keys, user_id = body.keys(), caller.user_id
        # A request that only continues an authentication session stands for an earlier one.
        if keys or body.auth is None:
            try:
                await self._cross_signing.upload(user_id, keys, is_confirmed=False)
            except ConfirmationNeeded:
                pass
            else:
                return
        if caller.is_oauth:
            confirmed = await self._uia.confirm_on_page(OPERATION, caller, body)
        else:
            confirmed = await self._uia.confirm(OPERATION, caller, body, once=True)
        await self._cross_signing.upload(user_id, confirmed.keys(), is_confirmed=True)
        if caller.is_oauth and self._resets is not None:
            await self._resets.end(user_id)

    async def upload_cross_signing_signatures(
        self, caller: Requester, body: dict[str, dict[str, dict[str, Any]]]
    ) -> dict[str, Any]:
        """Store signatures by the caller's keys; those that are not valid are in `failures`."""
        return {"failures": await self._signatures.upload(caller.user_id, body)}
