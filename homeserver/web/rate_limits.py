"""Rate limits: a bound on the actions of one user, or of one address for requests without a user.

The generic cell rate algorithm (GCRA, ITU-T I.371): each action has a token bucket for each party,
with `burst` tokens, refilled by `per_second`. A bucket is stored as one number, the time at which
it will be full: an action postpones it by `1 / per_second`, and is refused if it would be more than
a whole `burst` in the future. A bucket whose time has passed is full and need not be stored.

Spec: https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
"""

from collections.abc import Mapping
from math import ceil
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import LimitExceeded

MAX_BUCKETS = 100_000


class Rate(Protocol):
    """A rate: the number of actions over time."""

    @property
    def per_second(self) -> float:
        """The long-term average."""

    @property
    def burst(self) -> int:
        """The number of actions at once."""


class RateLimits:
    """The buckets of all parties that were active recently.

    `rates` has the limited actions; it is empty if limits are disabled. At most `max_buckets` are
    stored: under a flood from ever new addresses the oldest are dropped.
    """

    def __init__(
        self, clock: IReactorTime, rates: Mapping[str, Rate], *, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._clock = clock
        self._rates = rates
        self._max_buckets = max_buckets
        self._full_at: dict[tuple[str, str], float] = {}
        self._overrides: dict[str, Rate | None] = {}
        self._cleanup_at = 1024

    def check(self, action: str, party: Requester | str, number: int = 1) -> None:
        """Count an action, or so many, of a caller, an address, or another party with a name.

        Raises `LimitExceeded`, and then counts nothing. An action without a rate has no limit; a
        number above the burst counts as the burst.
        """
        rate = self._rates.get(action)
        if rate is None:
            return
        if isinstance(party, Requester):
            if not party.is_rate_limited:
                return
            party = party.user_id
        if party in self._overrides:
            rate = self._overrides[party]
            if rate is None:
                return
        now = self._clock.seconds()
        step = 1 / rate.per_second
        full_at = max(now, self._full_at.get((action, party), 0.0))
        full_at += min(number, rate.burst) * step
        wait = full_at - now - rate.burst * step
        # Sums of steps are not exact; a thousandth of a step must not refuse the last of a burst.
        if wait > step / 1000:
            raise LimitExceeded(ceil(wait * 1000))
        self._full_at[action, party] = full_at
        if len(self._full_at) >= self._cleanup_at:
            self._clean_up(now)

    def override(self, user_id: str, rate: Rate | None) -> None:
        """Set a user's own rate for every action, or, with `None`, no limits at all."""
        self._overrides[user_id] = rate

    def reset(self, user_id: str) -> None:
        """Remove an override."""
        self._overrides.pop(user_id, None)

    def __len__(self) -> int:
        return len(self._full_at)

    def _clean_up(self, now: float) -> None:
        kept = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        for key in list(kept)[: max(0, len(kept) - self._max_buckets // 2)]:
            del kept[key]
        self._full_at = kept
        # Examining all of them pays off once there may be twice as many.
        self._cleanup_at = min(max(1024, 2 * len(kept)), self._max_buckets)
