"""The presence of one user: devices and time in, a state out."""

from homeserver.presence.user_presence import Timeouts, UserPresence

TIMEOUTS = Timeouts(idle_after=300.0, offline_after=30.0)
START = 1_000_000.0


def polling(*asked: str | None) -> UserPresence:
    """A user whose devices began to poll, each with what it asked for."""
    user = UserPresence()
    for number, state in enumerate(asked):
        user.poll_began(f"D{number}", state, START)  # type: ignore[arg-type]
    return user


def state(user: UserPresence, after: float = 0.0) -> str:
    return user.state(START + after, TIMEOUTS)


def test_who_polls_is_online() -> None:
    """To open a client is enough to be seen."""
    assert state(polling(None)) == "online"


def test_nobody_is_offline() -> None:
    """Without a device there is nobody."""
    assert state(UserPresence()) == "offline"


def test_most_present_device_counts() -> None:
    """A phone in the pocket does not hide its owner, who sits at the desk."""
    assert state(polling("unavailable", "online")) == "online"
    assert state(polling("unavailable", "unavailable")) == "unavailable"


def test_gap_between_two_polls_does_not_show() -> None:
    """A long poll ends every half minute, and its user does not blink."""
    user = polling(None)

    user.poll_ended("D0", START + 10)

    assert state(user, 39) == "online"
    assert user.next_change(START + 10, TIMEOUTS) == START + 40
    assert state(user, 40) == "offline"
    assert not user.has_devices


def test_open_connection_outlasts_closed_ones() -> None:
    """Two requests of one device may overlap; the last one to end counts."""
    user = polling(None)
    user.poll_began("D0", None, START)

    user.poll_ended("D0", START)

    assert state(user, 100) == "online"


def test_who_does_nothing_becomes_unavailable() -> None:
    """A client that polls in an empty room does not make its user look busy."""
    user = polling("online")

    user.poll_ended("D0", START + 299)
    user.poll_began("D0", "online", START + 299)

    assert state(user, 299) == "online"
    assert user.next_change(START + 299, TIMEOUTS) == START + 300
    assert state(user, 300) == "unavailable"
    assert user.next_change(START + 300, TIMEOUTS) is None


def test_second_device_that_connects_does_not_wake_an_idle_user() -> None:
    """A phone that polls for its notifications is no sign of life."""
    user = polling("online")

    user.poll_began("PHONE", None, START + 400)

    assert state(user, 400) == "unavailable"


def test_whatever_they_do_makes_a_user_online_again() -> None:
    """Who answers a message is there, whatever was set before."""
    user = polling(None)
    user.set("D0", "unavailable", None, START)
    assert state(user, 400) == "unavailable"

    user.act(START + 400)

    assert state(user, 400) == "online"
    assert state(user, 700) == "unavailable"


def test_who_hides_stays_hidden() -> None:
    """To appear offline and still write is a choice."""
    user = polling(None)
    user.set("D0", "offline", None, START)

    user.act(START + 5)

    assert state(user, 5) == "offline"


def test_state_that_was_set_holds_while_polls_repeat_themselves() -> None:
    """A client that sets a state need not repeat it with each poll."""
    user = polling("online")
    user.set("D0", "unavailable", "lunch", START)

    user.poll_began("D0", "online", START + 1)
    assert state(user, 1) == "unavailable"

    user.poll_began("D0", "unavailable", START + 2)
    user.poll_began("D0", "online", START + 3)
    assert (state(user, 3), user.status_msg) == ("online", "lunch")


def test_first_poll_without_a_wish_keeps_what_was_set() -> None:
    """A client may set its state before it connects."""
    user = UserPresence()
    user.set("D0", "unavailable", None, START)

    user.poll_began("D0", None, START + 1)

    assert state(user, 1) == "unavailable"


def test_restart_keeps_an_idle_user_idle() -> None:
    """An update of the server does not make everybody look as if they had just come."""
    user = UserPresence(last_active=START - 1000)
    user.remember("unavailable", START, TIMEOUTS)

    user.poll_began("D0", None, START + 5)

    assert state(user, 5) == "unavailable"
    assert state(user, 100) == "unavailable"


def test_restart_without_return_ends_offline() -> None:
    """Who does not come back after a restart is gone like anybody else."""
    user = UserPresence(last_active=START - 10)
    user.remember("online", START, TIMEOUTS)

    assert state(user, 29) == "online"
    assert state(user, 30) == "offline"
