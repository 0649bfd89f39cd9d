"""The presence of one user: devices and times as input, a state as output."""

from homeserver.presence.user_presence import Timeouts, UserPresence

TIMEOUTS = Timeouts(idle_after=300.0, offline_after=30.0)
START = 1_000_000.0


def polling(*set_presence: str | None) -> UserPresence:
    """A user whose devices began to poll, each with its `set_presence`."""
    user = UserPresence()
    for number, state in enumerate(set_presence):
        user.begin_poll(f"D{number}", state, START)  # type: ignore[arg-type]
    return user


def state(user: UserPresence, after: float = 0.0) -> str:
    return user.state(START + after, TIMEOUTS)


def test_polling_user_is_online() -> None:
    """Opening a client is enough to be shown as online."""
    assert state(polling(None)) == "online"


def test_user_without_devices_is_offline() -> None:
    """A user who has opened no client is shown as offline."""
    assert state(UserPresence()) == "offline"


def test_most_present_device_counts() -> None:
    """A phone in the pocket does not hide a user who is active at the desk."""
    assert state(polling("unavailable", "online")) == "online"
    assert state(polling("unavailable", "unavailable")) == "unavailable"


def test_gap_between_two_polls_does_not_show() -> None:
    """A long poll ends every half minute, and the user stays online."""
    user = polling(None)

    user.end_poll("D0", START + 10)

    assert state(user, 39) == "online"
    assert user.next_change(START + 10, TIMEOUTS) == START + 40
    assert state(user, 40) == "offline"
    assert not user.has_devices


def test_open_connection_outlasts_closed_ones() -> None:
    """Two requests of one device may overlap; the last one to end counts."""
    user = polling(None)
    user.begin_poll("D0", None, START)

    user.end_poll("D0", START)

    assert state(user, 100) == "online"


def test_inactive_user_becomes_unavailable() -> None:
    """A client that only polls does not make its user look active."""
    user = polling("online")

    user.end_poll("D0", START + 299)
    user.begin_poll("D0", "online", START + 299)

    assert state(user, 299) == "online"
    assert user.next_change(START + 299, TIMEOUTS) == START + 300
    assert state(user, 300) == "unavailable"
    assert user.next_change(START + 300, TIMEOUTS) is None


def test_second_device_that_connects_does_not_wake_an_idle_user() -> None:
    """A phone that polls for notifications is no activity of the user."""
    user = polling("online")

    user.begin_poll("PHONE", None, START + 400)

    assert state(user, 400) == "unavailable"


def test_activity_makes_a_user_online_again() -> None:
    """A user who sends a message is shown as online, even if they set `unavailable` before."""
    user = polling(None)
    user.set("D0", "unavailable", None, START)
    assert state(user, 400) == "unavailable"

    user.act(START + 400)

    assert state(user, 400) == "online"
    assert state(user, 700) == "unavailable"


def test_user_who_sets_offline_stays_offline() -> None:
    """Users may choose to appear offline and still write."""
    user = polling(None)
    user.set("D0", "offline", None, START)

    user.act(START + 5)

    assert state(user, 5) == "offline"


def test_state_that_was_set_holds_over_repeated_polls() -> None:
    """A client that sets a state need not repeat it with each poll."""
    user = polling("online")
    user.set("D0", "unavailable", "lunch", START)

    user.begin_poll("D0", "online", START + 1)
    assert state(user, 1) == "unavailable"

    user.begin_poll("D0", "unavailable", START + 2)
    user.begin_poll("D0", "online", START + 3)
    assert (state(user, 3), user.status_msg) == ("online", "lunch")


def test_first_poll_without_set_presence_keeps_the_state() -> None:
    """A client may set its state before it connects."""
    user = UserPresence()
    user.set("D0", "unavailable", None, START)

    user.begin_poll("D0", None, START + 1)

    assert state(user, 1) == "unavailable"


def test_restart_keeps_an_idle_user_idle() -> None:
    """A restart for an update does not make idle users look active."""
    user = UserPresence(last_active=START - 1000)
    user.restore("unavailable", START, TIMEOUTS)

    user.begin_poll("D0", None, START + 5)

    assert state(user, 5) == "unavailable"
    assert state(user, 100) == "unavailable"


def test_user_who_does_not_reconnect_after_a_restart_goes_offline() -> None:
    """A user who does not reconnect after a restart goes offline after the timeout."""
    user = UserPresence(last_active=START - 10)
    user.restore("online", START, TIMEOUTS)

    assert state(user, 29) == "online"
    assert state(user, 30) == "offline"
