"""What one socket is told: at once, in order, and never more than it can take."""

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
    """An engine whose news are the positions in `log`; `pause()` makes the next update wait."""

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
        news = [position for position in self.log if position > (since or 0)]
        if news:
            update.joined = {"!room": msgspec.json.encode(news)}
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error
        return update

    def pause(self) -> Deferred[None]:
        self.waiting = Deferred()
        return self.waiting

    def append(self, position: int) -> None:
        """Something happens, and whoever listens is woken."""
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
    def news(self) -> list[list[int]]:
        """The positions that each update told of."""
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
        self.turn()
        return self

    def turn(self) -> None:
        """Let the reactor go round once."""
        self.clock.advance(0)

    def happens(self, position: int) -> None:
        """Something happens, and the reactor goes round."""
        self.engine.append(position)
        self.turn()


def test_first_update_comes_at_once_even_if_it_is_empty() -> None:
    """A client that reconnects knows by it that it is up to date."""
    scene = Scene(since=0)

    scene.started()

    assert [update["next_batch"] for update in scene.outlet.updates] == ["s0"]


def test_news_is_pushed_from_where_the_last_update_ended() -> None:
    """Each event is told once."""
    scene = Scene().started()

    scene.happens(1)
    scene.happens(2)

    assert scene.outlet.news == [[], [1], [2]]


def test_news_of_one_turn_goes_in_one_update() -> None:
    """A burst costs one frame, not one for each event."""
    scene = Scene().started()

    scene.engine.append(1)
    scene.engine.append(2)
    scene.turn()

    assert scene.outlet.news == [[], [1, 2]]


def test_wake_up_without_news_sends_nothing() -> None:
    """What a filter hides does not wake the phone."""
    scene = Scene().started()

    scene.subscription.wake()
    scene.turn()

    assert len(scene.outlet.updates) == 1


def test_news_during_a_computation_is_told_in_one_more() -> None:
    """Nothing is lost between asking and answering, and two answers never overtake each other."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.happens(1)

    scene.happens(2)
    scene.happens(3)
    before = list(scene.outlet.news)
    scene.engine.waiting = None
    paused.callback(None)
    scene.turn()

    assert before == [[]]
    assert scene.outlet.news == [[], [1], [2, 3]]


def test_full_outlet_keeps_only_the_position_and_is_told_all_at_once() -> None:
    """A slow reader costs no memory, and is up to date with one update."""
    scene = Scene().started()
    scene.subscription.block()
    for position in range(1, 100):
        scene.happens(position)
    asked = len(scene.engine.asked)

    scene.subscription.unblock()
    scene.turn()

    assert asked == 1
    assert scene.outlet.news == [[], list(range(1, 100))]


def test_outlet_that_fills_up_in_the_same_turn_gets_no_more() -> None:
    """A subscription that was woken already must look again before it sends."""
    scene = Scene().started()
    scene.engine.append(1)
    scene.subscription.block()

    scene.turn()

    assert scene.outlet.news == [[]]


def test_client_that_acknowledges_has_a_window() -> None:
    """A client may say for itself how far it is, and is not flooded."""
    scene = Scene().started()
    scene.subscription.acknowledge(0)
    for position in range(1, 7):
        scene.happens(position)
    before = list(scene.outlet.news)

    scene.subscription.acknowledge(1)
    scene.turn()

    assert before == [[], [1], [2], [3]]
    assert scene.outlet.news == [[], [1], [2], [3], [4, 5, 6]]


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


def test_full_state_is_given_once() -> None:
    """`full_state` is about the first update; the ones after it tell what changes."""
    scene = Scene(reader=SyncRequest(Requester(ALICE, "DEVICE"), full_state=True)).started()

    scene.happens(1)

    assert [reader.full_state for reader, _ in scene.engine.asked] == [True, False]


def test_stopped_subscription_is_not_woken_any_more() -> None:
    """A closed socket leaves nothing behind."""
    scene = Scene().started()
    scene.engine.append(1)

    scene.subscription.stop()
    scene.turn()

    assert scene.engine.wakers == []
    assert scene.outlet.news == [[]]


def test_computation_that_runs_is_cancelled_when_stopped() -> None:
    """Nobody works for a client that is gone, and nobody calls that an error."""
    scene = Scene().started()
    scene.engine.pause()
    scene.happens(1)

    scene.subscription.stop()

    assert scene.outlet.news == [[]]
    assert scene.outlet.failures == []


def test_failure_ends_the_subscription_and_is_told() -> None:
    """A client whose updates cannot be made must not wait for them for ever."""
    scene = Scene().started()
    scene.engine.error = Unavailable("no database")

    scene.happens(1)
    scene.happens(2)

    assert [failure.type for failure in scene.outlet.failures] == [Unavailable]
    assert scene.engine.wakers == []


def test_failure_after_a_wait_is_told_too() -> None:
    """As above, where the database was asked."""
    scene = Scene().started()
    paused = scene.engine.pause()
    scene.engine.error = ZeroDivisionError()
    scene.happens(1)

    paused.callback(None)

    assert [failure.type for failure in scene.outlet.failures] == [ZeroDivisionError]


def test_crowd_is_served_in_several_turns() -> None:
    """Ten thousand members of a room do not hold up everybody else's requests."""
    clock = Clock()
    rounds = BatchScheduler(clock)
    served: list[str] = []
    for _ in range(ROUND + 10):
        rounds.add(lambda: served.append("member"))
    clock.callLater(0, served.append, "somebody else")

    clock.advance(0)

    assert served.index("somebody else") == ROUND
    assert len(served) == ROUND + 11
