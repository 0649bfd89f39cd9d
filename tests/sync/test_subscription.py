"""The updates of one socket: at once, in order, and never more than it can take."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.filters import Filter, RoomFilter
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.subscription import MAX_BATCH_SIZE, BatchScheduler, Subscription
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import Update

ALICE = "@alice:example.org"
WINDOW = 3


class FakeEngine:
    """An engine with changes at `positions`; `pause()` makes the next update wait."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.received_tokens: list[SyncToken] = []
        self.requests: list[tuple[SyncRequest, SyncToken | None]] = []
        self.wakers: list[Callable[[], None]] = []
        self.waiting: Deferred[None] | None = None
        self.error: Exception | None = None

    def received(self, request: SyncRequest, token: SyncToken) -> None:
        self.received_tokens.append(token)

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakers.append(wake)
        return lambda: self.wakers.remove(wake)

    async def update(self, request: SyncRequest, since: SyncToken | None) -> Update:
        self.requests.append((request, since))
        now = SyncToken(self.positions[-1] if self.positions else 0)
        update = Update(SyncSpan(since, now))
        begin = 0 if since is None else since.base
        positions_sent = [position for position in self.positions if position > begin]
        if positions_sent:
            update.joined = {"!room": msgspec.json.encode(positions_sent)}
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error
        return update

    def pause(self) -> Deferred[None]:
        self.waiting = Deferred()
        return self.waiting

    def append(self, position: int) -> None:
        """Add a change, and wake the followers."""
        self.positions.append(position)
        for wake in list(self.wakers):
            wake()


class Sink:
    """Keeps the updates and failures that it gets."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.failures: list[Failure] = []

    def send_update(self, update: bytes) -> None:
        self.updates.append(msgspec.json.decode(update))

    def update_failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    @property
    def positions_sent(self) -> list[list[int]]:
        """The positions in each update."""
        return [update.get("rooms", {}).get("join", {}).get("!room", []) for update in self.updates]


class Scene:
    """A subscription with its engine, sink and clock."""

    def __init__(self, since: int | None = 0, request: SyncRequest | None = None) -> None:
        self.clock = Clock()
        self.engine = FakeEngine()
        self.sink = Sink()
        self.scheduler = BatchScheduler(self.clock)
        self.request = request or SyncRequest(Requester(ALICE, "DEVICE"))
        self.subscription = Subscription(
            self.engine,
            self.scheduler,
            self.request,
            None if since is None else SyncToken(since),
            self.sink,
            WINDOW,
        )

    def started(self) -> "Scene":
        """The scene after the first update."""
        self.subscription.start()
        self.iterate()
        return self

    def iterate(self) -> None:
        """Run one reactor iteration."""
        self.clock.advance(0)

    def happens(self, position: int) -> None:
        """Add a change, and run one reactor iteration."""
        self.engine.append(position)
        self.iterate()


def test_first_update_comes_at_once_even_if_it_is_empty() -> None:
    """A client that reconnects learns by it that it is up to date."""
    scene = Scene(since=0)

    scene.started()

    assert [update["next_batch"] for update in scene.sink.updates] == ["s0"]


def test_update_begins_where_the_last_one_ended() -> None:
    """Each event is sent once."""
    scene = Scene().started()

    scene.happens(1)
    scene.happens(2)

    assert scene.sink.positions_sent == [[], [1], [2]]


def test_changes_of_one_reactor_iteration_go_in_one_update() -> None:
    """A burst costs one frame, not one for each event."""
    scene = Scene().started()

    scene.engine.append(1)
    scene.engine.append(2)
    scene.iterate()

    assert scene.sink.positions_sent == [[], [1, 2]]


def test_wake_up_without_changes_sends_nothing() -> None:
    """An event that the filter hides does not wake the phone."""
    scene = Scene().started()

    scene.subscription.wake()
    scene.iterate()

    assert len(scene.sink.updates) == 1


def test_changes_during_a_computation_go_in_one_more_update() -> None:
    """No change is lost during a computation, and two updates never overtake each other."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.happens(1)

    scene.happens(2)
    scene.happens(3)
    before = list(scene.sink.positions_sent)
    scene.engine.waiting = None
    paused.callback(None)
    scene.iterate()

    assert before == [[]]
    assert scene.sink.positions_sent == [[], [1], [2, 3]]


def test_full_sink_keeps_only_the_position_and_gets_one_update() -> None:
    """A slow client costs no memory, and is up to date with one update."""
    scene = Scene().started()
    scene.subscription.block()
    for position in range(1, 100):
        scene.happens(position)
    requests = len(scene.engine.requests)

    scene.subscription.unblock()
    scene.iterate()

    assert requests == 1
    assert scene.sink.positions_sent == [[], list(range(1, 100))]


def test_sink_that_fills_up_in_the_same_iteration_gets_no_more() -> None:
    """A subscription that was woken already must check the sink before it sends."""
    scene = Scene().started()
    scene.engine.append(1)
    scene.subscription.block()

    scene.iterate()

    assert scene.sink.positions_sent == [[]]


def test_client_that_acknowledges_has_a_window() -> None:
    """A client may report its position, and is not flooded."""
    scene = Scene().started()
    scene.subscription.acknowledge(SyncToken(0))
    for position in range(1, 7):
        scene.happens(position)
    before = list(scene.sink.positions_sent)

    scene.subscription.acknowledge(SyncToken(1))
    scene.iterate()

    assert before == [[], [1], [2], [3]]
    assert scene.sink.positions_sent == [[], [1], [2], [3], [4, 5, 6]]


def test_only_an_acknowledgement_proves_that_an_update_was_received() -> None:
    """A message to the device is kept until then: the socket may break after it was sent."""
    scene = Scene().started()
    for position in range(1, 4):
        scene.happens(position)
    before = list(scene.engine.received_tokens)

    scene.subscription.acknowledge(SyncToken(2))

    assert before == [SyncToken(0)]  # with which it began
    assert scene.engine.received_tokens == [SyncToken(0), SyncToken(2)]


def test_client_that_never_acknowledges_has_no_window() -> None:
    """Acknowledging is optional."""
    scene = Scene().started()

    for position in range(1, 10):
        scene.happens(position)

    assert len(scene.sink.updates) == 10


def test_filter_is_used_from_the_next_update_on() -> None:
    """A client that leaves a view no longer gets its events."""
    scene = Scene().started()
    other = SyncRequest(scene.request.caller, Filter(room=RoomFilter(rooms=())))

    scene.subscription.use(other)
    scene.happens(1)

    assert [request.filter for request, _ in scene.engine.requests] == [Filter(), other.filter]


def test_full_state_is_given_once() -> None:
    """`full_state` applies to the first update; later ones have the changes."""
    scene = Scene(request=SyncRequest(Requester(ALICE, "DEVICE"), full_state=True)).started()

    scene.happens(1)

    assert [request.full_state for request, _ in scene.engine.requests] == [True, False]


def test_stopped_subscription_is_not_woken_any_more() -> None:
    """A closed socket leaves no waker behind."""
    scene = Scene().started()
    scene.engine.append(1)

    scene.subscription.stop()
    scene.iterate()

    assert scene.engine.wakers == []
    assert scene.sink.positions_sent == [[]]


def test_computation_that_runs_is_cancelled_when_stopped() -> None:
    """The server stops working for a client that disconnected, and logs no error."""
    scene = Scene().started()
    scene.engine.pause()
    scene.happens(1)

    scene.subscription.stop()

    assert scene.sink.positions_sent == [[]]
    assert scene.sink.failures == []


def test_failure_ends_the_subscription_and_is_reported() -> None:
    """A client must not wait forever for an update that cannot be made."""
    scene = Scene().started()
    scene.engine.error = Unavailable("no database")

    scene.happens(1)
    scene.happens(2)

    assert [failure.type for failure in scene.sink.failures] == [Unavailable]
    assert scene.engine.wakers == []


def test_failure_after_a_wait_is_reported_too() -> None:
    """As above, where the engine waited for the database."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.engine.error = ZeroDivisionError()
    scene.happens(1)

    paused.callback(None)

    assert [failure.type for failure in scene.sink.failures] == [ZeroDivisionError]


def test_crowd_is_served_in_several_reactor_iterations() -> None:
    """Ten thousand members of a room do not delay the requests of other users."""
    clock = Clock()
    scheduler = BatchScheduler(clock)
    served: list[str] = []
    for _ in range(MAX_BATCH_SIZE + 10):
        scheduler.add(lambda: served.append("member"))
    clock.callLater(0, served.append, "another request")

    clock.advance(0)

    assert served.index("another request") == MAX_BATCH_SIZE
    assert len(served) == MAX_BATCH_SIZE + 11
