"""The pure rules of mails: pauses of rooms, and since when an event waits."""

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.push.email.digest_state import (
    DAY_SECONDS,
    MAX_ROOMS,
    NO_MAILS,
    DigestState,
    RoomPause,
    decode_state,
    encode_state,
    is_quiet,
    next_pause,
    noted_at,
)
from homeserver.push.email.mail_slots import MailSlots

NOW = 1_800_000_000.0


class DigestStateTests(TestCase):
    def test_a_time_counts_only_where_it_can_be_true(self) -> None:
        """A remote server can neither hurry a mail nor put it off."""
        since = NOW - 100
        self.assertEqual(noted_at(int((NOW - 40) * 1000), since, NOW), NOW - 40)
        for false in (0, int((since - 1) * 1000), int((NOW + 1) * 1000), 2**53 - 1, -(2**53)):
            self.assertEqual(noted_at(false, since, NOW), since)

    def test_a_clock_that_was_set_back_delays_nothing(self) -> None:
        """What waits since tomorrow waits since now."""
        self.assertEqual(noted_at(int(NOW * 1000), NOW + 3_600, NOW), NOW)

    def test_pauses_double_up_to_a_day(self) -> None:
        """A busy room is mailed once a day in the end."""
        pause, seconds = None, []
        for _ in range(10):
            seconds.append(next_pause(pause, 600.0))
            pause = RoomPause(1, NOW, seconds[-1])
        self.assertEqual(seconds[:3], [600.0, 1_200.0, 2_400.0])
        self.assertEqual(seconds[-2:], [DAY_SECONDS, DAY_SECONDS])

    def test_a_quiet_day_ends_a_pause(self) -> None:
        """A room that says something once a week is mailed at once."""
        pause = RoomPause(1, NOW, DAY_SECONDS)
        now = NOW + 2 * DAY_SECONDS
        self.assertFalse(is_quiet(pause, NOW + DAY_SECONDS - 1, now))
        self.assertTrue(is_quiet(pause, NOW + DAY_SECONDS, now))

    def test_a_mail_of_the_future_pauses_nothing(self) -> None:
        """Once the clock is right again, a room is not silent until then."""
        pause = RoomPause(1, NOW + 365 * DAY_SECONDS, 600.0)

        self.assertTrue(is_quiet(pause, NOW, NOW))

    def test_the_state_of_many_rooms_is_bounded(self) -> None:
        """The latest rooms are kept."""
        state = NO_MAILS
        for number in range(MAX_ROOMS + 5):
            state = state.mailed({number: 600.0}, number, NOW + number)
        self.assertEqual(sorted(state.rooms), [*range(5, MAX_ROOMS + 5)])
        self.assertLess(len(encode_state(state) or b""), 8_192)

    def test_a_state_is_read_as_it_was_stored(self) -> None:
        """Also one that waits, and none."""
        waiting = DigestState(7, NOW, {3: RoomPause(5, NOW, 600.0)})
        for state in (NO_MAILS, waiting, DigestState(waiting_since=NOW)):
            self.assertEqual(decode_state(encode_state(state)), state)


class WallClock(Clock):
    """A clock whose wall-clock time differs by `offset` seconds."""

    offset = 0.0

    def wall_seconds(self) -> float:
        """The wall-clock time."""
        return self.seconds() + self.offset


class MailSlotTests(TestCase):
    def test_a_clock_that_is_set_back_does_not_prolong_a_pause(self) -> None:
        """Else no mail would be sent for as long."""
        clock = WallClock()
        slots = MailSlots(clock, lambda: 0.5)
        slots.failed()
        clock.offset = -DAY_SECONDS
        self.assertGreater(slots.pause_seconds, 0)

        clock.advance(60.0)

        self.assertEqual(slots.pause_seconds, 0)
