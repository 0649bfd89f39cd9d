"""Users with a running client: events add up over syncs, and tests wait until they see one.

Waiting is by long poll, and received events are kept, so a test may ask in any order.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import msgspec
from twisted.internet.defer import DeferredLock

from tests.support.actors import Actor
from tests.support.reactor import pause
from tests.support.refused import Refused

PATIENCE_SECONDS = 60.0  # a busy machine is slow; only failures wait that long
POLL_MS = 2_000
FILTER = msgspec.json.encode({"room": {"timeline": {"limit": 200}}}).decode()


class NeverSeen(AssertionError):
    """An awaited event did not come; the message lists the received ones."""


class Watcher(Actor):
    """A user with a client that syncs whenever the test waits for an event.

    `timeline` holds the events of each room in the order of the client; `state_seen` its state as
    the client has it, `stripped` that of an invite or a knock; `typing` the typing users,
    `receipts` the event up to which each user has read; `membership` is the user's own in each
    room, `presence` that of each user.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.timeline: dict[str, list[Any]] = defaultdict(list)
        self.state_seen: dict[str, dict[tuple[str, str], Any]] = defaultdict(dict)
        self.stripped: dict[str, dict[tuple[str, str], Any]] = defaultdict(dict)
        self.typing: dict[str, list[str]] = defaultdict(list)
        self.receipts: dict[str, dict[str, str]] = defaultdict(dict)
        self.membership: dict[str, str] = {}
        self.presence: dict[str, Any] = {}
        self._since: str | None = None
        self._syncing = DeferredLock()

    async def look(self, timeout_ms: int = 0) -> None:
        """Sync once and store the response."""
        answer = await self.sync(self._since, timeout_ms=timeout_ms, filter=FILTER)
        self._since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for membership in ("join", "leave"):
            for room_id, room in rooms.get(membership, {}).items():
                self.membership[room_id] = membership
                self._take_room(room_id, room)
        for membership in ("invite", "knock"):
            for room_id, room in rooms.get(membership, {}).items():
                self.membership[room_id] = membership
                events = room[f"{membership}_state"]["events"]
                self.stripped[room_id] = {
                    (event["type"], event["state_key"]): event for event in events
                }
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]

    async def until(self, seen: Callable[[], Any], what: str = "") -> Any:
        """Sync until `seen()` is true; returns its result."""
        deadline = monotonic() + PATIENCE_SECONDS
        while not (found := seen()):
            if monotonic() > deadline:
                raise NeverSeen(f"{self.user_id} did not see {what}: {self._summary()}")
            # Several coroutines may wait for the same client, which syncs once at a time.
            async with self._syncing:
                if not seen():
                    await self.look(POLL_MS)
        return found

    async def hears(self, room: str, event_id: str) -> Any:
        """Wait until an event is in the timeline; returns it as the client received it."""
        return await self.until(
            lambda: next(
                (event for event in self.timeline[room] if event["event_id"] == event_id), 0
            ),
            event_id,
        )

    async def becomes(self, room: str, membership: str) -> None:
        """Wait until one is `join`, `invite`, `knock` or `leave` (after a ban too) in a room."""
        await self.until(lambda: self.membership.get(room) == membership, f"own {membership}")

    async def sees_state(
        self, room: str, event_type: str, content: dict[str, Any], state_key: str = ""
    ) -> Any:
        """Wait until a state event has these members in its content; gives the whole event."""

        def found() -> Any:
            event = self.state_seen[room].get((event_type, state_key))
            return event if event and event["content"].items() >= content.items() else None

        return await self.until(found, f"{event_type} {state_key!r} with {content}")

    async def sees_member(self, room: str, actor: Actor, membership: str) -> Any:
        """Wait until a user's membership of a room is this; returns the event."""
        return await self.sees_state(
            room, "m.room.member", {"membership": membership}, actor.user_id
        )

    async def sees_typing(self, room: str, *actors: Actor) -> None:
        """Wait until exactly these type in a room."""
        names = sorted(actor.user_id for actor in actors)
        await self.until(lambda: sorted(self.typing[room]) == names, f"{names} typing")

    async def sees_receipt(self, room: str, event_id: str, actor: Actor) -> None:
        """Wait until a user has read up to an event."""
        await self.until(
            lambda: self.receipts[room].get(actor.user_id) == event_id,
            f"the receipt of {actor.user_id} at {event_id}",
        )

    async def sees_presence(self, actor: Actor, **content: Any) -> Any:
        """Wait until a user's presence has these members; returns the whole content."""

        def found() -> Any:
            seen = self.presence.get(actor.user_id, {})
            return seen if seen.items() >= content.items() else None

        return await self.until(found, f"{actor.user_id} with {content}")

    def _take_room(self, room_id: str, room: Any) -> None:
        state = self.state_seen[room_id]
        timeline = room.get("timeline", {}).get("events", [])
        for event in [*room.get("state", {}).get("events", []), *timeline]:
            if "state_key" in event:
                state[event["type"], event["state_key"]] = event
        self.timeline[room_id] += timeline
        for event in room.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                self.typing[room_id] = event["content"]["user_ids"]
            elif event["type"] == "m.receipt":
                for event_id, kinds in event["content"].items():
                    for user_id in kinds.get("m.read", {}):
                        self.receipts[room_id][user_id] = event_id

    def _summary(self) -> str:
        timelines = {
            room_id: [(event["type"], event["event_id"]) for event in events[-10:]]
            for room_id, events in self.timeline.items()
        }
        return f"memberships {self.membership}, timelines {timelines}"


async def eventually(attempt: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Try again until the attempt gives something true; being refused counts as false."""
    deadline = monotonic() + PATIENCE_SECONDS
    last: Any = None
    while monotonic() < deadline:
        try:
            last = await attempt()
        except Refused as refused:
            last = refused
        else:
            if last:
                return last
        await pause(0.1)
    raise NeverSeen(f"{what}; the last answer was {last}")


async def refused(attempt: Awaitable[Any]) -> Refused:
    """The error with which an attempt is refused; it is a failure if it succeeds."""
    try:
        answer = await attempt
    except Refused as error:
        return error
    raise AssertionError(f"a refusal was expected, but the answer is {answer}")
