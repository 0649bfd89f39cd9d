"""The queue of a destination: order, retries, catch-up."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.task import Clock

from federation.sending.destination_queue import DestinationQueue, QueuedPdu, SendContext
from federation.transport.errors import BackingOff
from homeserver.concurrency.backoff import Backoff
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.local_server import LocalServer

SERVER = "two.example"


class FakeClient:
    """A destination that is backed off from for a while."""

    def __init__(self) -> None:
        self.is_unavailable = True
        self.sent: list[bytes] = []

    async def put(self, server: str, path: str, content: bytes, **options: Any) -> Any:
        if self.is_unavailable:
            raise BackingOff(server, "failed lately")
        self.sent.append(content)
        return {}


class FakeDestinations:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def health_of(self, server: str) -> Backoff:
        return Backoff(1, 0.0, self._clock.seconds() + 10.0)


class FakeBacklog:
    """Recorded rooms, with one added while others are being deleted."""

    def __init__(self) -> None:
        self.records: dict[int, QueuedPdu] = {}
        self.meanwhile: Callable[[], None] | None = None

    def record_missed(self, _: str, events: Sequence[QueuedPdu]) -> Deferred[None]:
        for event in events:
            self.records.setdefault(event.room, event)
        return succeed(None)

    async def missed(self, _: str, limit: int) -> list[QueuedPdu]:
        return list(self.records.values())[:limit]

    async def resume_later(self, _: str, sent: Sequence[QueuedPdu]) -> None:
        assert not sent

    async def mark_caught_up(self, _: str, rooms: Sequence[int]) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        for room in rooms:
            self.records.pop(room, None)


def test_event_recorded_while_others_are_deleted_is_sent() -> None:
    """A server that is back gets the message that was sent just then."""
    clock, client, backlog = Clock(), FakeClient(), FakeBacklog()
    client.is_unavailable = False
    origin = LocalServer("one.example", SigningKey.from_seed("1", bytes(32)), clock)
    context: Any = SendContext(
        client,  # type: ignore[arg-type]
        FakeDestinations(clock),  # type: ignore[arg-type]
        backlog,
        origin,
        clock,
        DeferredSemaphore(1),
        DeferredSemaphore(1),
        lambda: "1",
    )
    backlog.record_missed(SERVER, [QueuedPdu(1, 7, b'{"body":"first"}')])
    queue = DestinationQueue(SERVER, context)
    backlog.meanwhile = lambda: queue.put(QueuedPdu(2, 7, b'{"body":"second"}'))

    queue.catch_up()

    sent = b"".join(client.sent)
    assert b"first" in sent
    assert b"second" in sent
    assert queue.is_idle


def test_queued_events_are_sent_after_the_back_off() -> None:
    """A server that was unavailable for a moment does not miss later events permanently."""
    clock, client = Clock(), FakeClient()
    origin = LocalServer("one.example", SigningKey.from_seed("1", bytes(32)), clock)
    context: Any = SendContext(
        client,  # type: ignore[arg-type]
        FakeDestinations(clock),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        origin,
        clock,
        DeferredSemaphore(1),
        DeferredSemaphore(1),
        lambda: "1",
    )
    queue = DestinationQueue(SERVER, context)
    queue.put_edu({"edu_type": "m.typing", "content": {}}, "key")
    assert client.sent == []

    client.is_unavailable = False
    clock.advance(10.0)

    assert len(client.sent) == 1
    assert b"m.typing" in client.sent[0]
    assert queue.is_idle
