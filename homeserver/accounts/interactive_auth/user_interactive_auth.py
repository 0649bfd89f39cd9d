"""User-interactive authentication: proofs that a client gives before it may do something delicate.

A request that needs it is answered with 401 and the flows to choose from, until the stages of one
flow are completed in their order. A session is bound to the operation, its target and the caller;
the body may not change once a stage is completed, so that nobody consents to one thing and gets
another. A request that repeats only `auth` means the body that it began with.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from homeserver.accounts.interactive_auth.authentication_sessions import (
    AuthenticationSessions,
    SessionContent,
)
from homeserver.protocol.errors import Forbidden, MatrixError, NotFound, Unrecognized

Flows = Sequence[Sequence[str]]


class Confirmable(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request body that user-interactive authentication stands before."""

    auth: dict[str, Any] | None = None


Body = TypeVar("Body", bound=Confirmable)


class StageFailed(MatrixError):
    """The stage was not completed; the client may try again."""

    errcode, status = "M_FORBIDDEN", 401


class AuthenticationNeeded(MatrixError):
    """Stages remain. Carries the failure of the stage that was just tried, if it failed."""

    status = 401

    def __init__(
        self, flows: Flows, params: Mapping[str, Any], session: str, completed: Iterable[str]
    ) -> None:
        super().__init__("Authentication is needed")
        self.session = session
        self.failure: MatrixError | None = None
        self._answer = {
            "flows": [{"stages": list(stages)} for stages in flows],
            "params": dict(params),
            "session": session,
            "completed": list(completed),
        }

    def body(self) -> dict[str, Any]:
        return self._answer if self.failure is None else self.failure.body() | self._answer


class Stage(Protocol):
    """One kind of proof."""

    @property
    def type(self) -> str:
        """Its name, such as `m.login.password`."""

    def params(self) -> Mapping[str, Any] | None:
        """What clients need to know to complete it."""

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        """Complete the stage for a caller, or for nobody yet; gives what is proved, as JSON.

        `operation` is what the proof is asked for.

        Raises `StageFailed` where another try makes sense, any other error where none does.
        """


class UserInteractiveAuth:
    """Stands before operations that need more than an access token."""

    def __init__(self, sessions: AuthenticationSessions, stages: Iterable[Stage]) -> None:
        self.sessions = sessions
        self.stages = {stage.type: stage for stage in stages}

    async def confirm(
        self, operation: str, user_id: str | None, body: Body, flows: Flows, *, once: bool = False
    ) -> Body:
        """The confirmed request; `once`: it has to be confirmed again when it is repeated.

        `operation` names what is done, and to what. Raises `AuthenticationNeeded`, and `Forbidden`
        for a session of another request.
        """
        attempt = await self.begin(operation, user_id, body)
        await attempt.confirm(flows)
        if once:
            await attempt.end()
        return attempt.body

    async def begin(
        self, operation: str, user_id: str | None, body: Body, address: str = ""
    ) -> "Attempt[Body]":
        """Take up the session of a request, or begin one; nothing is judged yet.

        `address` is where the request came from; it counts where no user is known.
        Raises `Forbidden` for a session of another request.
        """
        auth = body.auth or {}
        asked = _without_auth(body)
        session_id = auth.get("session")
        content = None
        if isinstance(session_id, str):
            content = await self.sessions.find(session_id)
        if content is None:
            content = SessionContent(operation, user_id, asked)
            return Attempt(self, None, content, body, auth, address)
        if (content.operation, content.user_id) != (operation, user_id):
            raise Forbidden("The authentication session belongs to another request")
        if asked == "{}":
            body = msgspec.json.decode(content.body, type=type(body))
        elif content.completed and asked != content.body:
            raise Forbidden("The request has changed since authentication began")
        else:
            content.body = asked
        return Attempt(self, session_id, content, body, auth, address)

    async def get_session(self, session_id: str) -> SessionContent:
        """A session that was begun. Raises `NotFound`."""
        content = await self.sessions.find(session_id)
        if content is None:
            raise NotFound("The authentication session is unknown, or has expired")
        return content

    async def complete(self, session_id: str, type_: str, auth: dict[str, Any]) -> None:
        """Complete one stage apart from the request, as on a web page.

        Raises `NotFound` for unknown sessions and stages, and what the stage raises.
        """
        content = await self.get_session(session_id)
        stage = self.stages.get(type_)
        if stage is None:
            raise NotFound("This server does not know the authentication type")
        if type_ not in content.completed:
            content.completed[type_] = await stage.check(auth, content.user_id, content.operation)
            await self.sessions.save(session_id, content)


class Attempt(Generic[Body]):
    """One request on its way through authentication. `body` is what it asks for, without `auth`."""

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
        """What `remember` was given when the same request was made before."""
        return self._content.outcome

    @property
    def proofs(self) -> Mapping[str, Any]:
        """What each completed stage proved."""
        return self._content.completed

    async def confirm(self, flows: Flows) -> None:
        """Try the stage that the request offers. Raises `AuthenticationNeeded` if stages remain."""
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
        """Keep what came of the request, for when the client has to ask again."""
        self._content.outcome = outcome
        if self._session_id is not None:
            await self._uia.sessions.save(self._session_id, self._content)

    async def end(self) -> None:
        """Forget the session: the same request needs new proofs."""
        if self._session_id is not None:
            await self._uia.sessions.end(self._session_id)

    async def _try_stage(self, flows: Flows) -> MatrixError | None:
        type_ = self._auth.get("type")
        if type_ is None or type_ in self._content.completed:
            return None
        stage = self._uia.stages.get(type_) if isinstance(type_, str) else None
        if stage is None:
            return Unrecognized("This server does not know the authentication type")
        # A stage that no flow asks for may be completed, but leads nowhere.
        if any(type_ in flow for flow in flows):
            so_far = [*self._completed_of(flows), type_]
            if not any(so_far == list(flow[: len(so_far)]) for flow in flows):
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


def _without_auth(body: Confirmable) -> str:
    """The canonical form of a request, in which defaults are left out: "{}" asks for nothing."""
    asked = msgspec.structs.replace(body, auth=None)
    return msgspec.json.encode(asked, order="deterministic").decode()
