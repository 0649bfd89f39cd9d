"""Rendezvous sessions: one history for two writers, and bounds whatever strangers do."""

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from homeserver.accounts.rendezvous.rendezvous_sessions import (
    LIFE_MS,
    MAX_PAYLOAD,
    RendezvousSession,
    RendezvousSessions,
)
from homeserver.protocol.errors import InvalidParam, LimitExceeded, NotFound, TooLarge
from homeserver.protocol.identifiers import is_valid_opaque_id

LIFE = LIFE_MS / 1000

payloads = st.sampled_from([b"", b"a", b"b", b"c"])
steps = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from(["read", "write", "repeat"]), payloads),
    max_size=40,
)


class Writer:
    """A device that writes after what it has read last, and may repeat its last request."""

    def __init__(self, first: RendezvousSession) -> None:
        self.seen = first.sequence_token
        self.last = self.seen, first.payload


class RendezvousSessionsTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.sessions = RendezvousSessions(self.clock, max_in_all=5, max_of_party=2)

    def assert_gone(self, session: RendezvousSession) -> None:
        for attempt in (
            lambda: self.sessions.get(session.id),
            lambda: self.sessions.write(session.id, session.sequence_token, b"more"),
            lambda: self.sessions.delete(session.id),
        ):
            with self.assertRaises(NotFound):
                attempt()

    def test_devices_write_in_turn(self) -> None:
        """Each write replaces the payload, and has a token of its own, even for equal payloads."""
        session = self.sessions.create("a", b"one")
        tokens = [session.sequence_token]
        for payload in (b"two", b"two", b"three"):
            written = self.sessions.write(session.id, tokens[-1], payload)
            assert written is not None
            self.assertEqual(self.sessions.get(session.id), written)
            self.assertEqual(written.payload, payload)
            tokens.append(written.sequence_token)

        self.assertEqual(len(set(tokens)), 4)
        self.assertTrue(all(map(is_valid_opaque_id, [session.id, *tokens])))

    def test_a_write_after_an_older_payload_is_refused(self) -> None:
        """No device replaces what it has not read."""
        session = self.sessions.create("a", b"one")
        written = self.sessions.write(session.id, session.sequence_token, b"two")

        self.assertIsNone(self.sessions.write(session.id, session.sequence_token, b"other"))
        self.assertIsNone(self.sessions.write(session.id, "", b"one"))
        self.assertEqual(self.sessions.get(session.id), written)

    def test_a_repeated_write_changes_nothing(self) -> None:
        """A device that did not get the response repeats its request."""
        session = self.sessions.create("a", b"one")
        written = self.sessions.write(session.id, session.sequence_token, b"two")
        self.clock.advance(5)

        again = self.sessions.write(session.id, session.sequence_token, b"two")

        self.assertEqual(again, written)

    @given(steps)
    def test_two_writers_have_one_history(self, taken: list[tuple[int, str, bytes]]) -> None:
        """Each write that succeeds follows the payload that its writer has read: none is lost."""
        sessions = RendezvousSessions(Clock())
        first = sessions.create("a", b"")
        writers = Writer(first), Writer(first)
        follows = {first.sequence_token: b""}  # the history, by tokens, in order

        for number, step, payload in taken:
            writer, latest = writers[number], sessions.get(first.id)
            if step == "read":
                writer.seen = latest.sequence_token
                continue
            if step == "write":
                writer.last = writer.seen, payload
            token, sent = writer.last
            written = sessions.write(first.id, token, sent)
            if token == latest.sequence_token:
                assert written is not None
                self.assertNotIn(written.sequence_token, follows)
                follows[written.sequence_token] = sent
            elif sent == latest.payload:
                self.assertEqual(written, latest)
            else:
                self.assertIsNone(written)
            found = sessions.get(first.id)
            self.assertEqual((found.sequence_token, found.payload), [*follows.items()][-1])

    def test_sessions_expire(self) -> None:
        """A QR code that somebody photographed is soon of no use, however often it is used."""
        session = self.sessions.create("a", b"one")
        self.clock.advance(LIFE - 1)
        written = self.sessions.write(session.id, session.sequence_token, b"two")
        assert written is not None
        self.assertEqual(self.sessions.remaining_ms(written), 1_000)

        self.clock.advance(1)

        self.assert_gone(written)
        self.assertEqual(len(self.sessions), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sessions_can_be_ended(self) -> None:
        """A user cancels, and the other device notices."""
        session, other = self.sessions.create("a", b"one"), self.sessions.create("a", b"one")

        self.sessions.delete(session.id)

        self.assert_gone(session)
        self.assertEqual(self.sessions.get(other.id), other)

    def test_a_party_has_few_sessions(self) -> None:
        """One network keeps nobody else from signing in, and its own sessions end."""
        first = self.sessions.create("a", b"")
        self.clock.advance(100)
        self.sessions.create("a", b"")
        with self.assertRaises(LimitExceeded) as refused:
            self.sessions.create("a", b"")

        self.sessions.create("b", b"")
        self.assertEqual(refused.exception.retry_after_ms, LIFE_MS - 100_000)
        self.clock.advance(LIFE - 100)
        self.sessions.create("a", b"")
        self.sessions.delete(self.sessions.create("c", b"").id)
        self.assert_gone(first)

    def test_sessions_are_bounded_in_number(self) -> None:
        """Strangers with many addresses take no more memory than this."""
        kept = [self.sessions.create(str(number), b"x" * MAX_PAYLOAD) for number in range(5)]
        for number in range(1_000):
            with self.assertRaises(LimitExceeded) as refused:
                self.sessions.create(f"more {number}", b"")

        self.assertEqual(refused.exception.retry_after_ms, LIFE_MS)
        self.assertEqual(len(self.sessions), 5)
        self.sessions.delete(kept[0].id)
        self.sessions.create("at last", b"")

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["create", "delete", "wait"]),
                st.sampled_from("abcdef"),
                st.integers(0, 400),
            ),
            max_size=60,
        )
    )
    def test_bounds_hold_whatever_is_done(self, taken: list[tuple[str, str, int]]) -> None:
        """A session is there until it expires or is ended, and then counts no more."""
        clock = Clock()
        sessions = RendezvousSessions(clock, max_in_all=5, max_of_party=2)
        open_ones: list[RendezvousSession] = []
        for step, party, number in taken:
            open_ones = [each for each in open_ones if each.expires_at > clock.seconds()]
            of_party = [each for each in open_ones if each.party == party]
            if step == "wait":
                clock.advance(number)
            elif step == "delete" and open_ones:
                sessions.delete(open_ones.pop(number % len(open_ones)).id)
            elif step == "create" and (len(open_ones) == 5 or len(of_party) == 2):
                with self.assertRaises(LimitExceeded) as refused:
                    sessions.create(party, b"")
                self.assertLessEqual(refused.exception.retry_after_ms, LIFE_MS)
            elif step == "create":
                open_ones.append(sessions.create(party, b""))
            self.assertLessEqual(len(sessions), 5)

    def test_payloads_are_small_and_text(self) -> None:
        """Nothing but text is passed on, and a refused write changes nothing."""
        session = self.sessions.create("a", b"x" * MAX_PAYLOAD)
        for error, payload in (
            (TooLarge, b"x" * (MAX_PAYLOAD + 1)),
            (TooLarge, "é".encode() * (MAX_PAYLOAD // 2) + b"x"),
            (InvalidParam, b"\xff"),
            (InvalidParam, "\ud800".encode("utf-8", "surrogatepass")),
            (InvalidParam, b"a\0b"),
        ):
            with self.assertRaises(error):
                self.sessions.create("b", payload)
            with self.assertRaises(error):
                self.sessions.write(session.id, session.sequence_token, payload)

        self.assertEqual(self.sessions.get(session.id), session)
        self.assertEqual(len(self.sessions), 1)
