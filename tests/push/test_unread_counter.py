"""Counters of unread events: incremental counts compared with a count of all events at once."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.push.unread_counter import (
    MAX_MENTIONS,
    WINDOW,
    OwnEvent,
    PushAction,
    UnreadCount,
    UnreadCounter,
)

ROOT = "$root"
threads = st.sampled_from([None, ROOT, "$other"])
plans = st.lists(
    st.one_of(
        st.tuples(st.just("quiet")),
        st.tuples(st.just("burst")),
        st.tuples(st.just("action"), threads, st.booleans(), st.booleans()),
        st.tuples(st.just("own"), threads),
        st.tuples(st.just("read"), st.integers(0, 400), threads | st.just("main")),
        st.tuples(st.just("ask")),
    ),
    max_size=40,
)


def action(position: int, thread: str | None = None, **fields: Any) -> PushAction:
    given = {"highlight": False, "mentioned": False, "age": 0} | fields
    return PushAction(position, thread, **given)


def test_notifying_events_are_counted() -> None:
    """The client shows the number on a badge."""
    counter = UnreadCounter(0)

    counter.advance(3, 3, [action(1), action(2, ROOT, highlight=True), action(3)])

    assert counter.count() == UnreadCount(3, 1, {ROOT: (1, 1)})
    assert counter.count().main == (2, 0)


def test_receipt_of_the_room_reads_everything() -> None:
    """Clients that do not know threads clear them too."""
    counter = UnreadCounter(0)
    counter.advance(3, 3, [action(1), action(2, ROOT), action(3)])

    counter.read(2, None)

    assert counter.count() == UnreadCount(1, 0, {})


def test_receipt_of_a_thread_reads_that_thread() -> None:
    """A user who opened a thread has not seen the room, and vice versa."""
    counter = UnreadCounter(0)
    counter.advance(4, 4, [action(1), action(2, ROOT), action(3, "$other"), action(4, ROOT)])

    counter.read(2, ROOT)
    counter.read(4, "main")

    assert counter.count() == UnreadCount(2, 0, {"$other": (1, 0), ROOT: (1, 0)})
    assert counter.is_read(2, ROOT)
    assert not counter.is_read(3, "$other")


def test_own_event_reads_where_it_was_sent() -> None:
    """A user who replies has read what they reply to."""
    counter = UnreadCounter(0)

    counter.advance(3, 3, [action(1), action(2, ROOT), OwnEvent(3, None)])

    assert counter.count() == UnreadCount(1, 0, {ROOT: (1, 0)})


def test_receipt_ahead_of_the_counted_events_applies() -> None:
    """An event that the user read before it was counted is not unread."""
    counter = UnreadCounter(0)

    counter.read(5, None)
    counter.advance(6, 2, [action(5), action(6)])

    assert counter.count().notification == 1


def test_redacted_event_is_not_counted() -> None:
    """There is nothing left to read."""
    counter = UnreadCounter(0)
    counter.advance(2, 2, [action(1, highlight=True), action(2)])

    counter.forget(1)

    assert counter.count() == UnreadCount(1, 0, {})


def test_mention_is_counted_at_any_age() -> None:
    """A user who returns from a holiday sees that they were mentioned."""
    counter = UnreadCounter(0)
    counter.advance(2, 2, [action(1, highlight=True, mentioned=True), action(2)])

    for position in range(3, WINDOW + 10):
        counter.advance(position, 1, [action(position)])

    assert counter.count() == UnreadCount(WINDOW + 1, 1, {})


def test_counts_are_bounded() -> None:
    """A user who never reads costs no more than another."""
    counter = UnreadCounter(0)

    for position in range(1, 2 * WINDOW):
        counter.advance(position, 1, [action(position, highlight=True, mentioned=True)])

    assert counter.count().notification == WINDOW + MAX_MENTIONS


@given(plans)
def test_counts_do_not_depend_on_when_they_are_read(plan: list[tuple[Any, ...]]) -> None:
    """All devices of a user show the same number, whenever each of them syncs."""
    steady, lazy = UnreadCounter(0), UnreadCounter(0)
    waiting: list[PushAction | OwnEvent] = []
    begun, position = 0, 0
    events: list[PushAction | OwnEvent | None] = []
    reads: list[tuple[int, str | None]] = []
    for what, *rest in plan:
        if what == "ask":
            lazy.advance(position, position - begun, _aged(waiting, position))
            waiting, begun = [], position
            assert lazy.count() == steady.count() == _counted(events, reads)
        elif what == "read":
            reads.append((rest[0], rest[1]))
            for counter in (steady, lazy):
                counter.read(rest[0], rest[1])
        else:
            for _ in range(90 if what == "burst" else 1):
                position += 1
                event = _event(position, what, rest)
                events.append(event)
                steady.advance(position, 1, [] if event is None else [event])
                waiting += [] if event is None else [event]

    lazy.advance(position, position - begun, _aged(waiting, position))
    assert lazy.count() == steady.count() == _counted(events, reads)


def _event(position: int, what: str, rest: list[Any]) -> PushAction | OwnEvent | None:
    if what == "action":
        return action(position, rest[0], highlight=rest[1], mentioned=rest[2])
    return OwnEvent(position, rest[0]) if what == "own" else None


def _aged(items: list[PushAction | OwnEvent], position: int) -> list[PushAction | OwnEvent]:
    return [
        action(
            item.position,
            item.thread,
            highlight=item.highlight,
            mentioned=item.mentioned,
            age=position - item.position,
        )
        if isinstance(item, PushAction)
        else item
        for item in items
    ]


def _counted(
    events: list[PushAction | OwnEvent | None], reads: list[tuple[int, str | None]]
) -> UnreadCount:
    """The definition: unread ones of the newest events, and older ones that mention the user."""
    marks = [*reads]
    marks += [
        (event.position, event.thread or "main") for event in events if isinstance(event, OwnEvent)
    ]
    unread = [
        event
        for place, event in enumerate(events)
        if isinstance(event, PushAction)
        and (event.mentioned or place >= len(events) - WINDOW)
        and not any(
            event.position <= upto and thread in (None, event.thread or "main")
            for upto, thread in marks
        )
    ]
    in_threads: dict[str, tuple[int, int]] = {}
    for event in unread:
        if event.thread is not None:
            known = in_threads.get(event.thread, (0, 0))
            in_threads[event.thread] = (known[0] + 1, known[1] + event.highlight)
    return UnreadCount(len(unread), sum(event.highlight for event in unread), in_threads)
