"""User-interactive authentication: proofs that a client gives before a sensitive operation.

A request that needs it is answered with 401 and the flows to choose from, until the stages of one
flow are completed in their order. A session is bound to the operation, its target and the caller;
the body may not change once a stage is completed, so that a user cannot consent to one thing and
get another. A request that repeats only `auth` stands for the body that the session began with.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from homeserver.accounts.interactive_auth.authentication_sessions import (
    AuthenticationSessions,
    SessionContent,
)
from homeserver.accounts.interactive_auth.owner_flows import SSO, Flows, password_flows
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import BadJson, Forbidden, MatrixError, NotFound, Unrecognized
from homeserver.protocol.proposals.unstable_names import UNSTABLE_OAUTH_STAGE

OAUTH = "m.oauth"
OAUTH_FLOWS = ((OAUTH,), (UNSTABLE_OAUTH_STAGE,))
FindFlows = Callable[[str], Awaitable[Flows]]


class Confirmable(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request body that needs user-interactive authentication."""

    auth: dict[str, Any] | None = None


Body = TypeVar("Body", bound=Confirmable)


class StageFailed(MatrixError):
    """The stage was not completed; the client may try again."""

    errcode, status = "M_FORBIDDEN", 401


class AuthenticationNeeded(MatrixError):
    """Stages remain. Has the failure of the stage that was just tried, if it failed."""

    status = 401

    def __init__(
        self, flows: Flows, params: Mapping[str, Any], session: str, completed: Iterable[str]
    ) -> None:
        super().__init__("Authentication is needed")
        self.session = session
        self.failure: MatrixError | None = None
        self._flow, self._completed = flows[0], [*completed]
        self._response = {
            "flows": [{"stages": list(stages)} for stages in flows],
            "params": dict(params),
            "session": session,
            "completed": self._completed,
        }

    @property
    def next_stage(self) -> str:
        """The stage that comes next in the first flow."""
        return next(type_ for type_ in self._flow if type_ not in self._completed)

    def body(self) -> dict[str, Any]:
        return self._response if self.failure is None else self.failure.body() | self._response


class Stage(Protocol):
    """One authentication type."""

    @property
    def type(self) -> str:
        """Its name, such as `m.login.password`."""

    def params(self) -> Mapping[str, Any] | None:
        """The parameters that clients need to complete it."""

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        """Complete the stage, for a user if there is one yet; returns the proof, as JSON.

        `operation` is the operation that needs the proof.

        Raises `StageFailed` where the client may try again, any other error where it may not.
        """


class UserInteractiveAuth:
    """Confirms operations that need more than an access token.

    `find_flows` gives the flows with which the owner of an account confirms an operation.
    """

    def __init__(
        self,
        sessions: AuthenticationSessions,
        stages: Iterable[Stage],
        find_flows: FindFlows = password_flows,
    ) -> None:
        self.sessions = sessions
        self.stages = {stage.type: stage for stage in stages}
        self.find_flows = find_flows

    async def confirm(
        self, operation: str, caller: Requester, body: Body, *, once: bool = False
    ) -> Body:
        """The request, confirmed by the caller; with `once` a repetition is confirmed again.

        `operation` names the operation and its target. An application service needs no
        confirmation, since its users have no password. Raises `AuthenticationNeeded`, and
        `Forbidden` for a session of another request, and for a client of the OAuth 2.0 API.
        """
        if caller.appservice is not None:
            return body
        check_not_oauth(caller)
        attempt = await self.begin(operation, caller.user_id, body)
        await attempt.confirm(await self.find_flows(caller.user_id))
        if once:
            await attempt.end()
        return attempt.body

    async def confirm_on_page(self, operation: str, caller: Requester, body: Body) -> Body:
        """The request of a client of the OAuth 2.0 API, which its user permits on a page.

        The client repeats the request once the user has done so, and need not name a stage then.
        Raises what `confirm` does.
        """
        is_repeated = bool((body.auth or {}).get("session"))
        named = msgspec.structs.replace(body, auth={**(body.auth or {}), "type": OAUTH})
        attempt = await self.begin(operation, caller.user_id, named)
        try:
            await attempt.confirm(OAUTH_FLOWS)
        except AuthenticationNeeded as needed:
            if not is_repeated:
                needed.failure = None
            raise
        await attempt.end()
        return attempt.body

    async def begin(
        self, operation: str, user_id: str | None, body: Body, address: str = ""
    ) -> "Attempt[Body]":
        """Continue the session of a request, or begin one; no stage is checked yet.

        `address` is that of the client; it identifies the party where there is no user.
        Raises `BadJson`, and `Forbidden` for a session of another request.
        """
        auth = body.auth or {}
        for name in ("type", "session"):
            if not isinstance(auth.get(name), str | None):
                raise BadJson(f"auth: `{name}` is a string")
        request = _without_auth(body)
        session_id = auth.get("session")
        content = None
        if session_id is not None:
            content = await self.sessions.find(session_id)
        if content is None:
            content = SessionContent(operation, user_id, request)
            return Attempt(self, None, content, body, auth, address)
        if (content.operation, content.user_id) != (operation, user_id):
            raise Forbidden("The authentication session belongs to another request")
        if request == "{}":
            body = msgspec.json.decode(content.body, type=type(body))
        elif content.completed and request != content.body:
            raise Forbidden("The request has changed since authentication began")
        else:
            content.body = request
        return Attempt(self, session_id, content, body, auth, address)

    async def get_session(self, session_id: str) -> SessionContent:
        """An existing session. Raises `NotFound`."""
        content = await self.sessions.find(session_id)
        if content is None:
            raise NotFound("The authentication session is unknown, or has expired")
        return content

    async def complete(self, session_id: str, type_: str, auth: dict[str, Any]) -> None:
        """Complete one stage without the request, as on a web page.

        Raises `NotFound` for unknown sessions and stages, and what the stage raises.
        """
        content = await self.get_session(session_id)
        stage = self.stages.get(type_)
        if stage is None:
            raise NotFound("This server does not know the authentication type")
        if type_ not in content.completed:
            content.completed[type_] = await stage.check(auth, content.user_id, content.operation)
            await self.sessions.save(session_id, content)

    async def record(self, session_id: str, type_: str, proof: object) -> None:
        """Record the proof of a stage that was completed by other means, such as in a browser.

        It replaces a former proof. Raises `NotFound` for an unknown session.
        """
        content = await self.get_session(session_id)
        content.completed[type_] = proof
        await self.sessions.save(session_id, content)


class Attempt(Generic[Body]):
    """One request that is being authenticated. `body` is its body, without `auth`."""

    def __init__(
        self,
        uia: UserInteractiveAuth,
        session_id: str | None,
        content: SessionContent,
        body: Body,
        auth: dict[str, Any],
        address: str,
    ) -> None:
        self.body = body
        self._uia = uia
        self._session_id = session_id
        self._content = content
        self._auth = auth
        self._address = address

    @property
    def outcome(self) -> str | None:
        """The outcome that `remember` stored when the same request was made before."""
        return self._content.outcome

    @property
    def proofs(self) -> Mapping[str, Any]:
        """The proofs of the completed stages, by type."""
        return self._content.completed

    async def confirm(self, flows: Flows) -> None:
        """Try the stage in the request. Raises `AuthenticationNeeded` if stages remain.

        Raises `Forbidden` if another user than that of the session has signed in for it.
        """
        if self._content.completed.get(SSO) not in (None, self._content.user_id):
            raise Forbidden("The user who has signed in is not the one of this request")
        failure = await self._try_stage(flows)
        completed = self._completed_of(flows)
        if failure is None and any(completed == list(flow) for flow in flows):
            if self._session_id is not None:
                await self._uia.sessions.save(self._session_id, self._content)
            return
        self._session_id = await self._uia.sessions.save(
            self._session_id, self._content, self._address
        )
        types = {type_ for flow in flows for type_ in flow}
        stages = (stage for type_, stage in self._uia.stages.items() if type_ in types)
        params = {stage.type: params for stage in stages if (params := stage.params())}
        needed = AuthenticationNeeded(flows, params, self._session_id, self._content.completed)
        needed.failure = failure
        raise needed

    async def remember(self, outcome: str) -> None:
        """Store the outcome of the request, in case the client repeats it."""
        self._content.outcome = outcome
        if self._session_id is not None:
            await self._uia.sessions.save(self._session_id, self._content)

    async def end(self) -> None:
        """Delete the session: the same request needs new proofs."""
        if self._session_id is not None:
            await self._uia.sessions.end(self._session_id)

    async def _try_stage(self, flows: Flows) -> MatrixError | None:
        type_ = self._auth.get("type")
        if type_ is None or type_ in self._content.completed:
            return None
        stage = self._uia.stages.get(type_)
        if stage is None:
            return Unrecognized("This server does not know the authentication type")
        # A stage that is in no flow may be completed, but has no effect.
        if any(type_ in flow for flow in flows):
            attempted = [*self._completed_of(flows), type_]
            if not any(attempted == list(flow[: len(attempted)]) for flow in flows):
                return StageFailed("The stages of a flow must be completed in their order")
        try:
            self._content.completed[stage.type] = await stage.check(
                self._auth, self._content.user_id, self._content.operation
            )
        except StageFailed as failed:
            return failed
        return None

    def _completed_of(self, flows: Flows) -> list[str]:
        types = {type_ for flow in flows for type_ in flow}
        return [type_ for type_ in self._content.completed if type_ in types]


def check_not_oauth(caller: Requester | None) -> None:
    """Raise `Forbidden` for a client of the OAuth 2.0 API, whose user confirms nothing to it.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
    """
    if caller is not None and caller.is_oauth:
        raise Forbidden("Clients of the OAuth 2.0 API send users to their account page for this")


def _without_auth(body: Confirmable) -> str:
    """The canonical form of a request, without defaults: "{}" has no parameters."""
    request = msgspec.structs.replace(body, auth=None)
    return msgspec.json.encode(request, order="deterministic").decode()
