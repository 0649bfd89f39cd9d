"""Rendezvous sessions, in the form that is proposed now: JSON, with a token for each payload.

Sessions may be made without an access token: a new device that shows the QR code has none. For a
client that has one its user is counted, so that others at the same address are not in the way.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4388
"""

from typing import Any

import msgspec

from homeserver.accounts.rendezvous.rendezvous_sessions import RendezvousSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.proposals.unstable_names import CONCURRENT_WRITE, RENDEZVOUS
from homeserver.web.addresses import network_of
from homeserver.web.browser.navigations import refuse_navigation
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

MAX_BODY = 32_768  # bytes; the encoding of a payload in JSON may have six for each of its own


class FirstPayload(msgspec.Struct):
    """The payload of a new session."""

    data: str


class NextPayload(msgspec.Struct):
    """A payload, and the token of the one that it replaces."""

    sequence_token: str
    data: str


class ConcurrentWrite(MatrixError):
    """Another client has replaced the payload that the writer had seen."""

    errcode, status = CONCURRENT_WRITE, 409


class RendezvousApi:
    def __init__(self, sessions: RendezvousSessions) -> None:
        self._sessions = sessions

    def routes(self) -> list[Route]:
        session = f"{RENDEZVOUS}/{{rendezvous_id}}"
        return [
            Route("GET", RENDEZVOUS, self.discover, auth=Auth.OPTIONAL, limit="lookup"),
            Route(
                "POST",
                RENDEZVOUS,
                self.create,
                auth=Auth.OPTIONAL,
                limit="oauth",
                max_body=MAX_BODY,
            ),
            *(
                Route(
                    method,
                    session,
                    handler,
                    auth=Auth.NONE,
                    limit="lookup",
                    max_body=MAX_BODY,
                    hides_path=True,
                )
                for method, handler in (
                    ("GET", self.receive),
                    ("PUT", self.send),
                    ("DELETE", self.cancel),
                )
            ),
        ]

    def discover(self) -> dict[str, Any]:
        """Whether the client may make a session: everybody may."""
        return {"create_available": True}

    def create(
        self, caller: Requester | None, request: Request, body: FirstPayload
    ) -> dict[str, Any]:
        """Make a session."""
        party = network_of(request.address) if caller is None else caller.user_id
        session = self._sessions.create(party, encode(body.data))
        return {
            "id": session.id,
            "sequence_token": session.sequence_token,
            "expires_in_ms": self._sessions.remaining_ms(session),
        }

    def receive(self, rendezvous_id: str, request: Request) -> dict[str, Any]:
        """The latest payload."""
        refuse_navigation(request)
        session = self._sessions.get(rendezvous_id)
        return {
            "data": session.payload.decode(),
            "sequence_token": session.sequence_token,
            "expires_in_ms": self._sessions.remaining_ms(session),
        }

    def send(self, rendezvous_id: str, body: NextPayload) -> dict[str, Any]:
        """Replace the payload."""
        written = self._sessions.write(rendezvous_id, body.sequence_token, encode(body.data))
        if written is None:
            raise ConcurrentWrite("Another client has written since; fetch its payload first")
        return {"sequence_token": written.sequence_token}

    def cancel(self, rendezvous_id: str) -> None:
        """End the session."""
        self._sessions.delete(rendezvous_id)


def encode(data: str) -> bytes:
    """The bytes of a payload; lone surrogates become bytes that are not UTF-8, and are refused."""
    return data.encode("utf-8", "surrogatepass")
