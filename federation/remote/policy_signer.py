"""Requests to policy servers for signatures on events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
"""

from federation.remote.client_errors import for_users
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError, RemoteError
from homeserver.protocol.errors import Forbidden, RefusedByRemote
from homeserver.protocol.events import Event
from homeserver.protocol.policy_servers import KEY_ID
from homeserver.protocol.signing.unpadded_base64 import decode_base64

PATH = "/_matrix/policy/v1/sign"
TIMEOUT_SECONDS = 10.0  # a user waits, or a room
MAX_RESPONSE_BYTES = 65_536  # bytes


class PolicySigner:
    """Requests signatures from policy servers."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def sign(self, server: str, event: Event, *, is_waited_for: bool) -> bytes:
        """The signature on an event. Raises `MatrixError`, the server's own error if it returned
        one.

        `is_waited_for`: send the request even if the server failed lately, since a user waits.
        """
        try:
            signatures: dict[str, dict[str, str]] = await self._client.post(
                server,
                PATH,
                event.json,
                response_type=dict[str, dict[str, str]],
                timeout=TIMEOUT_SECONDS,
                max_response=MAX_RESPONSE_BYTES,
                despite_backoff=is_waited_for,
            )
        except RemoteError as error:
            if error.status == 429:
                raise error.limit_exceeded() from error
            if error.errcode == "M_FORBIDDEN":
                raise RefusedByRemote(403, error.errcode, error.error[:500]) from error
            if error.errcode in ("", "M_UNRECOGNIZED"):
                raise Forbidden(f"{server} is not a policy server") from error
            raise for_users(error) from error
        except FederationError as error:
            raise for_users(error) from error
        try:
            return decode_base64(signatures[server][KEY_ID])
        except (KeyError, ValueError):
            raise Forbidden(f"{server} returned no signature") from None
