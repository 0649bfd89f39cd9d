"""A subscription of one socket: updates at once, in order, and bounded."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.filters import Filter, RoomFilter
from homeserver.sync.subscription import ROUND, BatchScheduler, Subscription
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update

ALICE = "@alice:example.org"
WINDOW = 3


class FakeEngine:
    """An engine with the positions in `log` as updates; `pause()` delays the next update."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.asked: list[tuple[SyncRequest, int | None]] = []
        self.wakers: list[Callable[[], None]] = []
        self.waiting: Deferred[None] | None = None
        self.error: Exception | None = None

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakers.append(wake)
        return lambda: self.wakers.remove(wake)

    async def update(self, reader: SyncRequest, since: int | None) -> Update:
        self.asked.append((reader, since))
        update = Update(self.log[-1] if self.log else 0)
        positions = [position for position in self.log if position > (since or 0)]
        if positions:
            update.joined = {"!room": msgspec.json.encode(positions)}
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error
        return update

    def pause(self) -> Deferred[None]:
        self.waiting = Deferred()
        return self.waiting

    def append(self, position: int) -> None:
        """Publish a change, and wake the subscribers."""
        self.log.append(position)
        for wake in list(self.wakers):
            wake()


class Outlet:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.failures: list[Failure] = []

    def send_update(self, update: bytes) -> None:
        self.updates.append(msgspec.json.decode(update))

    def update_failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    @property
    def positions(self) -> list[list[int]]:
        """The positions that each update contained."""
        return [update.get("rooms", {}).get("join", {}).get("!room", []) for update in self.updates]


class Scene:
    """A subscription with everything around it."""

    def __init__(self, since: int | None = 0, reader: SyncRequest | None = None) -> None:
        self.clock = Clock()
        self.engine = FakeEngine()
        self.outlet = Outlet()
        self.rounds = BatchScheduler(self.clock)
        self.reader = reader or SyncRequest(Requester(ALICE, "DEVICE"))
        self.subscription = Subscription(
            self.engine, self.rounds, self.reader, since, self.outlet, WINDOW
        )

    def started(self) -> "Scene":
        """With the first update sent."""
        self.subscription.start()
        self.iterate()
        return self

    def iterate(self) -> None:
        """Run one iteration of the reactor."""
        self.clock.advance(0)

    def happens(self, position: int) -> None:
        """Something happens, and the reactor goes round."""
        self.engine.append(position)
        self.iterate()


def test_first_update_comes_at_once_even_if_it_is_empty() -> None:
    """A client that reconnects knows by it that it is up to date."""
    scene = Scene(since=0)

    scene.started()

    assert [update["next_batch"] for update in scene.outlet.updates] == ["s0"]


def test_change_is_pushed_from_the_end_of_the_last_update() -> None:
    """Each event is sent once."""
    scene = Scene().started()

    scene.happens(1)
    scene.happens(2)

    assert scene.outlet.positions == [[], [1], [2]]


def test_changes_of_one_iteration_go_in_one_update() -> None:
    """A burst costs one frame, not one for each event."""
    scene = Scene().started()

    scene.engine.append(1)
    scene.engine.append(2)
    scene.iterate()

    assert scene.outlet.positions == [[], [1, 2]]


def test_wake_up_without_changes_sends_nothing() -> None:
    """An event that a filter hides does not wake the phone."""
    scene = Scene().started()

    scene.subscription.wake()
    scene.iterate()

    assert len(scene.outlet.updates) == 1


def test_change_during_a_computation_is_sent_in_another_update() -> None:
    """No change is lost meanwhile, and two updates never overtake each other."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.happens(1)

    scene.happens(2)
    scene.happens(3)
    before = list(scene.outlet.positions)
    scene.engine.waiting = None
    paused.callback(None)
    scene.iterate()

    assert before == [[]]
    assert scene.outlet.positions == [[], [1], [2, 3]]


def test_full_sink_keeps_only_the_position_and_gets_one_update() -> None:
    """A slow client costs no memory, and is up to date with one update."""
    scene = Scene().started()
    scene.subscription.block()
    for position in range(1, 100):
        scene.happens(position)
    asked = len(scene.engine.asked)

    scene.subscription.unblock()
    scene.iterate()

    assert asked == 1
    assert scene.outlet.positions == [[], list(range(1, 100))]


def test_sink_that_fills_up_in_the_same_iteration_gets_no_more() -> None:
    """A woken subscription must check the sink again before it sends."""
    scene = Scene().started()
    scene.engine.append(1)
    scene.subscription.block()

    scene.iterate()

    assert scene.outlet.positions == [[]]


def test_client_that_acknowledges_has_a_window() -> None:
    """A client may say for itself how far it is, and is not flooded."""
    scene = Scene().started()
    scene.subscription.acknowledge(0)
    for position in range(1, 7):
        scene.happens(position)
    before = list(scene.outlet.positions)

    scene.subscription.acknowledge(1)
    scene.iterate()

    assert before == [[], [1], [2], [3]]
    assert scene.outlet.positions == [[], [1], [2], [3], [4, 5, 6]]


def test_client_that_never_acknowledges_has_no_window() -> None:
    """Acknowledging is an offer, not a duty."""
    scene = Scene().started()

    for position in range(1, 10):
        scene.happens(position)

    assert len(scene.outlet.updates) == 10


def test_filter_is_used_from_the_next_update_on() -> None:
    """A client that leaves a view stops paying for it."""
    scene = Scene().started()
    other = SyncRequest(scene.reader.caller, Filter(room=RoomFilter(rooms=())))

    scene.subscription.use(other)
    scene.happens(1)

    assert [reader.filter for reader, _ in scene.engine.asked] == [Filter(), other.filter]


def test_full_state_is_sent_once() -> None:
    """`full_state` applies to the first update; later ones have changes only."""
    scene = Scene(reader=SyncRequest(Requester(ALICE, "DEVICE"), full_state=True)).started()

    scene.happens(1)

    assert [reader.full_state for reader, _ in scene.engine.asked] == [True, False]


def test_stopped_subscription_is_not_woken_any_more() -> None:
    """A closed socket leaves nothing behind."""
    scene = Scene().started()
    scene.engine.append(1)

    scene.subscription.stop()
    scene.iterate()

    assert scene.engine.wakers == []
    assert scene.outlet.positions == [[]]


def test_computation_that_runs_is_cancelled_when_stopped() -> None:
    """Nothing is computed for a client that has gone, and this is no error."""
    scene = Scene().started()
    scene.engine.pause()
    scene.happens(1)

    scene.subscription.stop()

    assert scene.outlet.positions == [[]]
    assert scene.outlet.failures == []


def test_failure_ends_the_subscription_and_is_reported() -> None:
    """A client whose updates fail must not wait for them endlessly."""
    scene = Scene().started()
    scene.engine.error = Unavailable("no database")

    scene.happens(1)
    scene.happens(2)

    assert [failure.type for failure in scene.outlet.failures] == [Unavailable]
    assert scene.engine.wakers == []


def test_failure_after_a_wait_is_reported_too() -> None:
    """As above, after a query of the database."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.engine.error = ZeroDivisionError()
    scene.happens(1)

    paused.callback(None)

    assert [failure.type for failure in scene.outlet.failures] == [ZeroDivisionError]


def test_many_clients_are_served_in_several_iterations() -> None:
    """Ten thousand members of a room do not delay other users' requests."""
    clock = Clock()
    rounds = BatchScheduler(clock)
    served: list[str] = []
    for _ in range(ROUND + 10):
        rounds.add(lambda: served.append("member"))
    clock.callLater(0, served.append, "somebody else")

    clock.advance(0)

    assert served.index("somebody else") == ROUND
    assert len(served) == ROUND + 11
