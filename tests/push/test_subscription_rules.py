"""The rules of subscriptions to threads."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.proposals.thread_subscriptions import (
    ConflictingUnsubscription,
    ThreadSubscription,
    is_change,
)

# Each step is one position later: an event that mentions the user, an unsubscription, a manual
# subscription, or an automatic one for one of the events before.
steps = st.one_of(
    st.just("mention"),
    st.just("unsubscribe"),
    st.just("subscribe"),
    st.integers(0, 5),
)


def play(plan: list[str | int]) -> tuple[ThreadSubscription | None, list[tuple[str, int]]]:
    """The subscription after some steps; and the kinds of what happened, with their positions."""
    known: ThreadSubscription | None = None
    mentions: list[int] = []
    happened: list[tuple[str, int]] = []
    for position, step in enumerate(plan, 1):
        if step == "mention":
            mentions.append(position)
        elif step == "unsubscribe":
            if known is not None and known.is_subscribed:
                known = ThreadSubscription(False, known.is_automatic, position)
            happened.append(("unsubscribe", position))
        elif step == "subscribe":
            if is_change(known, None):
                known = ThreadSubscription(True, False, position)
            happened.append(("subscribe", position))
        elif mentions:
            cause = mentions[-1 - int(step) % len(mentions)]
            try:
                if is_change(known, cause):
                    known = ThreadSubscription(True, True, position)
            except ConflictingUnsubscription:
                happened.append(("refused", cause))
            else:
                happened.append(("automatic", cause))
    return known, happened


@given(st.lists(steps, max_size=30))
def test_an_old_event_never_undoes_an_unsubscription(plan: list[str | int]) -> None:
    """A device that was away for long cannot begin again what its user has ended."""
    known, happened = play(plan)
    last = None
    was_subscribed = False
    for kind, at in happened:
        if kind == "unsubscribe":
            last = at if was_subscribed else last
            was_subscribed = False
        elif kind == "refused":
            assert last is not None
            assert at < last
            assert not was_subscribed
        else:
            assert was_subscribed or kind == "subscribe" or last is None or at > last
            was_subscribed = True

    assert was_subscribed == (known is not None and known.is_subscribed)


@given(st.lists(steps, max_size=30))
def test_a_manual_subscription_stays_manual(plan: list[str | int]) -> None:
    """What a user chose is not made automatic; a later choice makes an automatic one manual."""
    known, happened = play(plan)
    begun: list[str] = []
    for kind, _ in happened:
        if kind == "unsubscribe":
            begun = []
        elif kind in ("subscribe", "automatic"):
            begun.append(kind)

    if known is not None and known.is_subscribed:
        assert known.is_automatic == ("subscribe" not in begun)
