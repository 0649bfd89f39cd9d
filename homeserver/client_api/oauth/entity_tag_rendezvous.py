"""Rendezvous sessions, in the form that deployed clients speak: plain text, with entity tags.

It is that of MSC4108 in 2024: a session has an address, its payload is the body of requests and
responses, and an entity tag (RFC 9110, 8.8.3) says which payload a client has seen.

Proxies that compress responses make entity tags weak, or add to them; so a tag is found in a header
whatever is around it.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4108
"""

import re
from email.utils import formatdate
from http import HTTPStatus

from homeserver.accounts.rendezvous.rendezvous_sessions import (
    RendezvousSession,
    RendezvousSessions,
)
from homeserver.protocol.errors import InvalidParam, MatrixError, MissingParam
from homeserver.protocol.proposals.unstable_names import ENTITY_TAG_RENDEZVOUS
from homeserver.web.addresses import network_of
from homeserver.web.browser.navigations import refuse_navigation
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

TEXT = "text/plain"
CONDITIONS = ("If-Match", "If-None-Match")
_TAG = re.compile(r"[0-9a-f]{32}")


class PreconditionFailed(MatrixError):
    """Another client has replaced the payload that the writer had seen."""

    errcode, status = "M_CONCURRENT_WRITE", 412


class EntityTagRendezvousApi:
    def __init__(self, public_baseurl: str, sessions: RendezvousSessions) -> None:
        self._address = public_baseurl.rstrip("/") + ENTITY_TAG_RENDEZVOUS
        self._sessions = sessions

    def routes(self) -> list[Route]:
        session = f"{ENTITY_TAG_RENDEZVOUS}/{{rendezvous_id}}"
        create = Route("POST", ENTITY_TAG_RENDEZVOUS, self.create, auth=Auth.NONE, limit="oauth")
        return [
            create,
            *(
                Route(
                    method,
                    session,
                    handler,
                    auth=Auth.NONE,
                    limit="lookup",
                    hides_path=True,
                    request_headers=CONDITIONS,
                )
                for method, handler in (
                    ("GET", self.receive),
                    ("PUT", self.send),
                    ("DELETE", self.cancel),
                )
            ),
        ]

    def create(self, request: Request, body: bytes) -> Response:
        """Make a session; the response has its address."""
        _check_type(request)
        session = self._sessions.create(network_of(request.address), body)
        headers = _headers_of(session) | {"Content-Type": "application/json"}
        return Response(HTTPStatus.CREATED, {"url": f"{self._address}/{session.id}"}, headers)

    def receive(self, rendezvous_id: str, request: Request) -> Response:
        """The latest payload, unless the client has seen it."""
        refuse_navigation(request)
        session = self._sessions.get(rendezvous_id)
        if session.sequence_token in _tags(request.header(b"If-None-Match")):
            return Response(HTTPStatus.NOT_MODIFIED, b"", _headers_of(session))
        return Response(HTTPStatus.OK, session.payload, _headers_of(session))

    def send(self, rendezvous_id: str, request: Request, body: bytes) -> Response:
        """Replace the payload."""
        _check_type(request)
        condition = request.header(b"If-Match")
        if condition is None:
            raise MissingParam("The request needs one `If-Match` header")
        tags = _tags(condition)
        # With several tags, or `*`, the client does not say which payload it has seen.
        seen = tags[0] if len(tags) == 1 else ""
        written = self._sessions.write(rendezvous_id, seen, body)
        if written is None:
            raise PreconditionFailed("Another client has written since; fetch its payload first")
        return Response(HTTPStatus.ACCEPTED, b"", _headers_of(written))

    def cancel(self, rendezvous_id: str) -> Response:
        """End the session."""
        self._sessions.delete(rendezvous_id)
        return Response(HTTPStatus.NO_CONTENT, b"")


def _headers_of(session: RendezvousSession) -> dict[str, str]:
    return {
        "Content-Type": TEXT,
        "ETag": f'"{session.sequence_token}"',
        "Expires": formatdate(session.expires_ms / 1000, usegmt=True),
        "Last-Modified": formatdate(session.modified_ms / 1000, usegmt=True),
        "Access-Control-Expose-Headers": "ETag",
    }


def _check_type(request: Request) -> None:
    given = request.header(b"Content-Type")
    if given is None:
        raise MissingParam("The request needs a `Content-Type`")
    if given.partition(";")[0].strip().lower() != TEXT:
        raise InvalidParam(f"The payload must be {TEXT}")


def _tags(condition: str | None) -> list[str]:
    return _TAG.findall(condition or "")
