"""Delayed events: events that a user schedules, and that are sent later unless they are cancelled.

A client that takes part in a call schedules its leaving, and restarts the delay every few seconds;
if it disappears, the server sends the event. A delay ends by the wall clock. What a user may send
is decided when the event is sent.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
"""

import secrets
from enum import Enum
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.sections.calls import DelayedEventSettings
from homeserver.protocol.errors import (
    Forbidden,
    InvalidParam,
    LimitExceeded,
    MatrixError,
    NotFound,
    TooLarge,
)
from homeserver.protocol.event_format import MAX_EVENT_BYTES
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.proposals.unstable_names import UNSTABLE_DELAY_ERRCODE, UNSTABLE_MAX_DELAY
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.rooms.sending.delayed_senders import DelayedSender
from homeserver.rooms.sending.due_events import DueEvents
from homeserver.rooms.sending.transaction_ids import transaction_key
from homeserver.storage.accounts.delayed_events import (
    DelayedEvent,
    delete_delayed_events_of,
    delete_old_finalised_of,
    finalised_events_of,
    find_by_transaction,
    find_delayed_event,
    insert_delayed_event,
    restart_delayed_event,
    scheduled_events_of,
    totals_of,
)
from homeserver.storage.database.database import Database

MAX_ID_BYTES = 255  # of room ids, event types and state keys
MAX_SCHEDULED_BYTES = 1_048_576  # contents of all events that a user has scheduled
MAX_FINALISED = 1_000  # of one user, beside those that were scheduled last
MAX_FINALISED_BYTES = 4_194_304
MAX_LISTED = 100  # finalised events in a list


class Action(Enum):
    """What a client does with a scheduled event."""

    SEND = "send"
    CANCEL = "cancel"
    RESTART = "restart"


class AlreadyFinalised(MatrixError):
    """The event was sent or cancelled already, which excludes the action."""

    errcode, status = "M_UNKNOWN", 409


class DelayTooLong(Forbidden):
    """The delay is longer than the server allows."""

    def __init__(self, max_delay_ms: int) -> None:
        extra: dict[str, Any] = {
            UNSTABLE_DELAY_ERRCODE: "M_MAX_DELAY_EXCEEDED",
            UNSTABLE_MAX_DELAY: max_delay_ms,
        }
        super().__init__(f"A delay is at most {max_delay_ms} ms", **extra)


class DelayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An event to be sent after a delay; `path` is that of the request, without transaction id."""

    room_id: str
    type: str
    state_key: str | None
    content: dict[str, Any]
    delay_ms: int
    path: str
    txn_id: str | None
    sticky: Stickiness | None = None


class DelayedEvents:
    """Schedules the events of users, and lets clients change and look up what is scheduled."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: DelayedEventSettings,
        sender: DelayedSender,
        due: DueEvents,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._sender = sender
        self._due = due
        self._scheduling: KeyedLocks[str] = KeyedLocks()  # by user

    async def schedule(self, caller: Requester, request: DelayRequest) -> str:
        """Schedule an event, once for each transaction id; returns its delay id.

        Raises `DelayTooLong`, `LimitExceeded` for a user who has scheduled too much, `Forbidden`
        where the server allows no delayed events, `TooLarge`, `InvalidParam`, `UserSuspended`.
        """
        check_not_suspended(caller)
        content = msgspec.json.encode(request.content)
        self._check(request, content)
        now, scope = now_ms(self._clock), caller.transaction_scope
        key = None
        if scope and request.txn_id is not None:
            key = transaction_key(request.path, request.txn_id)
        async with self._scheduling.hold(caller.user_id):
            if key is not None:
                known = await self._db.run(find_by_transaction, caller.user_id, scope, key)
                if known is not None:
                    return known
            await self._make_room(caller.user_id, len(content), now)
            delayed = DelayedEvent(
                delay_id=secrets.token_urlsafe(24),
                user_id=caller.user_id,
                scope=scope,
                txn_key=key,
                room_id=request.room_id,
                type=request.type,
                state_key=request.state_key,
                content=content,
                appservice=caller.appservice,
                event_ts=caller.event_ts,
                sticky_ms=None if request.sticky is None else request.sticky.duration_ms,
                sticky_name=None if request.sticky is None else request.sticky.name,
                is_rate_limited=caller.is_rate_limited,
                delay_ms=request.delay_ms,
                scheduled_ms=now,
                due_ms=now + request.delay_ms,
            )
            await self._db.run(insert_delayed_event, delayed)
        self._due.notice(now + request.delay_ms)
        return delayed.delay_id

    async def act(self, delay_id: str, action: Action, owner: str | None = None) -> None:
        """Send, cancel or restart a scheduled event, of this owner if one is given.

        What is finalised already as the action wishes stays so. Raises `NotFound`,
        `AlreadyFinalised`, and what sending the event raises; then it stays scheduled.
        """
        async with self._due.locks.hold(delay_id):
            if action is Action.RESTART and await self._restart(delay_id, owner):
                return
            delayed = await self._find(delay_id, owner)
            if delayed.finalised_ms is None:
                delayed = await self._finalise(delayed, action)
            outcome = Action.CANCEL if delayed.event_id is None else Action.SEND
            if outcome is not action:
                raise AlreadyFinalised(f"The delayed event is finalised: {outcome.value}")

    async def get(self, caller: Requester, delay_id: str) -> DelayedEvent:
        """One delayed event of a user. Raises `NotFound`."""
        return await self._find(delay_id, caller.user_id)

    async def scheduled(self, caller: Requester) -> list[DelayedEvent]:
        """The events that a user has scheduled, in the order of their times."""
        return await self._db.run(scheduled_events_of, caller.user_id)

    async def finalised(self, caller: Requester) -> list[DelayedEvent]:
        """The last events of a user that were sent, cancelled or failed, newest first."""
        return await self._db.run(finalised_events_of, caller.user_id, MAX_LISTED)

    async def deactivated(self, user_id: str, _erase: bool) -> None:
        """Forget all that a deactivated user has scheduled."""
        await self._db.run(delete_delayed_events_of, user_id)

    async def _restart(self, delay_id: str, owner: str | None) -> bool:
        """Whether it was still scheduled. All of a call do this all the time: one statement."""
        now = now_ms(self._clock)
        due_ms = await self._db.run(restart_delayed_event, delay_id, owner, now)
        if due_ms is None:
            return False
        self._due.notice(due_ms)
        return True

    async def _find(self, delay_id: str, owner: str | None) -> DelayedEvent:
        delayed = await self._db.run(find_delayed_event, delay_id)
        if delayed is None or owner not in (None, delayed.user_id):
            raise NotFound("There is no such delayed event")
        return delayed

    async def _finalise(self, delayed: DelayedEvent, action: Action) -> DelayedEvent:
        """Send or cancel a scheduled event; one that was sent before a crash is not cancelled."""
        if action is Action.SEND:
            event_id: str | None = await self._sender.send(delayed)
        else:
            event_id = await self._sender.find_sent(delayed)
        await self._due.finalise(delayed, event_id)
        return await self._find(delayed.delay_id, None)

    def _check(self, request: DelayRequest, content: bytes) -> None:
        if not self._settings.max_scheduled:
            raise Forbidden("This server allows no delayed events")
        if request.sticky is not None and request.type == MEMBER:
            raise InvalidParam("A membership is no sticky event")
        if request.delay_ms <= 0:
            raise InvalidParam("A delay is a positive number of milliseconds")
        if request.delay_ms > self._settings.max_delay * 1000:
            raise DelayTooLong(self._settings.max_delay * 1000)
        names = (request.room_id, request.type, request.state_key or "")
        if any(len(name.encode()) > MAX_ID_BYTES for name in names):
            raise TooLarge(f"Room ids, types and state keys have at most {MAX_ID_BYTES} bytes")
        if len(content) > MAX_EVENT_BYTES:
            raise TooLarge(f"An event has at most {MAX_EVENT_BYTES} bytes")

    async def _make_room(self, user_id: str, size: int, now: int) -> None:
        """Check that a user may schedule one more; the oldest finalised events make room."""
        totals = await self._db.run(totals_of, user_id)
        if (
            totals.scheduled >= self._settings.max_scheduled
            or totals.scheduled_size + size > MAX_SCHEDULED_BYTES
        ):
            wait = max((totals.next_due_ms or now) - now, 1_000)
            raise LimitExceeded(wait, "You have scheduled too many delayed events")
        if totals.finalised > MAX_FINALISED or totals.finalised_size > MAX_FINALISED_BYTES:
            await self._db.run(delete_old_finalised_of, user_id, MAX_FINALISED, MAX_FINALISED_BYTES)
