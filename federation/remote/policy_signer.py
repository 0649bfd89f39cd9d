"""Asking policy servers to sign events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
"""

from federation.remote.membership_requests import for_users
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError, RemoteError
from homeserver.protocol.errors import Forbidden, LimitExceeded, RefusedByRemote
from homeserver.protocol.events import Event
from homeserver.protocol.policy_servers import KEY_ID
from homeserver.protocol.signing.unpadded_base64 import decode_base64

PATH = "/_matrix/policy/v1/sign"
TIMEOUT_SECONDS = 10.0  # a user waits, or a room
MAX_RESPONSE_BYTES = 65_536  # bytes
RETRY_AFTER_MS = 5_000  # where a policy server that is asked too much does not say when to return


class PolicySigner:
    """Asks policy servers."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def sign(self, server: str, event: Event, *, is_waited_for: bool) -> bytes:
        """The signature of an event. Raises `MatrixError`, the server's own where it has one.

        `is_waited_for`: ask also one that failed lately, since a user waits.
        """
        try:
            signatures: dict[str, dict[str, str]] = await self._client.post(
                server,
                PATH,
                event.json,
                answer=dict[str, dict[str, str]],
                timeout=TIMEOUT_SECONDS,
                max_answer=MAX_RESPONSE_BYTES,
                despite_backoff=is_waited_for,
            )
        except RemoteError as refusal:
            if refusal.status == 429:
                wait = refusal.retry_after_ms
                raise LimitExceeded(RETRY_AFTER_MS if wait is None else wait) from refusal
            if refusal.errcode == "M_FORBIDDEN":
                raise RefusedByRemote(403, refusal.errcode, refusal.error[:500]) from refusal
            if refusal.errcode in ("", "M_UNRECOGNIZED"):
                raise Forbidden(f"{server} is no policy server") from refusal
            raise for_users(refusal) from refusal
        except FederationError as error:
            raise for_users(error) from error
        try:
            return decode_base64(signatures[server][KEY_ID])
        except (KeyError, ValueError):
            raise Forbidden(f"{server} gave no signature") from None
