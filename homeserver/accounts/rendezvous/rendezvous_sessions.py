"""Rendezvous sessions: payloads that two devices read and replace in turn, before one is signed in.

A device that is being signed in by a QR code has no access token yet, so anybody can make a
session, and anybody who has its id, which is in the QR code, can read and replace its payload. The
devices encrypt what they write, with keys that this server does not have.

Sessions are in memory only: they live for minutes, and after a restart both devices begin again
with a new QR code. Their number and their sizes are bounded, in all and for each party that makes
them. All live equally long, so the oldest expire first: each call removes the expired ones, and
none needs a timer.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4388
"""

import secrets
from collections import Counter

import msgspec

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import InvalidParam, LimitExceeded, NotFound, TooLarge

LIFE_MS = 300_000  # the longest that the proposal recommends: users look for their other device
MAX_PAYLOAD = 4_096  # bytes
MAX_IN_ALL = 2_000  # sessions; about ten megabytes
MAX_OF_PARTY = 20  # a household, or an office, has one address
RANDOM_BYTES = 16


class RendezvousSession(msgspec.Struct, frozen=True):
    """A session after its latest write.

    `payload` is UTF-8. `sequence_token` is a new one after each write. `party` is the user or the
    network that made the session. `expires_at` is in seconds of the clock that never jumps, for
    this server; `expires_ms` and `modified_ms` are in ms since the epoch, for clients.
    """

    id: str
    sequence_token: str
    payload: bytes
    party: str
    expires_at: float
    expires_ms: int
    modified_ms: int


class RendezvousSessions:
    """All sessions of this server."""

    def __init__(
        self, clock: Clock, *, max_in_all: int = MAX_IN_ALL, max_of_party: int = MAX_OF_PARTY
    ) -> None:
        self._clock = clock
        self._max_in_all = max_in_all
        self._max_of_party = max_of_party
        self._sessions: dict[str, RendezvousSession] = {}  # the oldest first
        self._of_party: Counter[str] = Counter()

    def create(self, party: str, payload: bytes) -> RendezvousSession:
        """A new session with a first payload.

        Raises `TooLarge`, `InvalidParam`, and `LimitExceeded` where there are too many sessions.
        """
        _check(payload)
        self._remove_expired()
        if self._of_party[party] >= self._max_of_party or len(self) >= self._max_in_all:
            raise LimitExceeded(self._wait_ms(party), "Too many rendezvous sessions are open")
        now = now_ms(self._clock)
        session = RendezvousSession(
            id=secrets.token_urlsafe(RANDOM_BYTES),
            sequence_token=secrets.token_hex(RANDOM_BYTES),
            payload=payload,
            party=party,
            expires_at=self._clock.seconds() + LIFE_MS / 1000,
            expires_ms=now + LIFE_MS,
            modified_ms=now,
        )
        self._sessions[session.id] = session
        self._of_party[party] += 1
        return session

    def get(self, session_id: str) -> RendezvousSession:
        """A session. Raises `NotFound` where it does not exist, or has expired."""
        self._remove_expired()
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound("There is no such rendezvous session; it may have expired")
        return session

    def write(
        self, session_id: str, sequence_token: str, payload: bytes
    ) -> RendezvousSession | None:
        """Replace the payload that the writer has seen; `None` where that is not the latest.

        A write of the latest payload changes nothing if its token is an older one: the writer did
        not get the response, and repeats the request. Raises `NotFound`, `TooLarge` and
        `InvalidParam`.
        """
        _check(payload)
        session = self.get(session_id)
        if sequence_token != session.sequence_token:
            return session if payload == session.payload else None
        written = msgspec.structs.replace(
            session,
            sequence_token=secrets.token_hex(RANDOM_BYTES),
            payload=payload,
            modified_ms=now_ms(self._clock),
        )
        self._sessions[session_id] = written
        return written

    def delete(self, session_id: str) -> None:
        """End a session. Raises `NotFound`."""
        self._remove(self.get(session_id))

    def remaining_ms(self, session: RendezvousSession) -> int:
        """The time until a session expires."""
        return max(0, round((session.expires_at - self._clock.seconds()) * 1000))

    def __len__(self) -> int:
        return len(self._sessions)

    def _wait_ms(self, party: str) -> int:
        """The time until one of the sessions expires that are in the way of a new one."""
        is_party_full = self._of_party[party] >= self._max_of_party
        oldest = next(
            each for each in self._sessions.values() if not is_party_full or each.party == party
        )
        return max(1, self.remaining_ms(oldest))

    def _remove_expired(self) -> None:
        now = self._clock.seconds()
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.expires_at > now:
                return
            self._remove(oldest)

    def _remove(self, session: RendezvousSession) -> None:
        del self._sessions[session.id]
        self._of_party[session.party] -= 1
        if not self._of_party[session.party]:
            del self._of_party[session.party]


def _check(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD:
        raise TooLarge(f"The payload may have at most {MAX_PAYLOAD} bytes")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise InvalidParam("The payload must be text in UTF-8") from None
    if "\0" in text:
        raise InvalidParam("The payload may not contain NUL characters")
