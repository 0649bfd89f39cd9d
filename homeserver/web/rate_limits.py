"""Rate limits: how often one user, or one address where there is no user, may do what.

Each action has a token bucket for each who: `burst` at once, then `per_second`. The algorithm is
the generic cell rate algorithm (GCRA, ITU-T I.371): a bucket is kept as one number, the time at
which it will be full again (the "theoretical arrival time"). An action moves it on by `1 /
per_second`, and is refused where it would lie more than a whole `burst` ahead. A bucket whose time
has passed is full and need not be kept.

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
    """How often something may be done."""

    @property
    def per_second(self) -> float:
        """Actions in the long run."""

    @property
    def burst(self) -> int:
        """Actions at once."""


class RateLimits:
    """The buckets of all who were active lately.

    `rates` names the limited actions; it is empty where limits are switched off. At most
    `max_buckets` are kept: under a flood from ever new addresses the oldest are forgotten.
    """

    def __init__(
        self, clock: IReactorTime, rates: Mapping[str, Rate], *, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._clock = clock
        self._rates = rates
        self._max_buckets = max_buckets
        self._full_at: dict[tuple[str, str], float] = {}
        self._overrides: dict[str, Rate | None] = {}
        self._sweep_at = 1024

    def check(self, action: str, who: Requester | str) -> None:
        """Count an action of a caller, or of an address or any other text that stands for somebody.

        Raises `LimitExceeded`, and then counts nothing. An action without a rate has no limit.
        """
        rate = self._rates.get(action)
        if rate is None:
            return
        if isinstance(who, Requester):
            who = who.user_id
        if who in self._overrides:
            rate = self._overrides[who]
            if rate is None:
                return
        now = self._clock.seconds()
        step = 1 / rate.per_second
        full_at = max(now, self._full_at.get((action, who), 0.0)) + step
        wait = full_at - now - rate.burst * step
        # Sums of steps are not exact; a thousandth of a step must not refuse the last of a burst.
        if wait > step / 1000:
            raise LimitExceeded(ceil(wait * 1000))
        self._full_at[action, who] = full_at
        if len(self._full_at) >= self._sweep_at:
            self._sweep(now)

    def override(self, user_id: str, rate: Rate | None) -> None:
        """Give a user an own rate for every action, or, with `None`, no limits at all."""
        self._overrides[user_id] = rate

    def reset(self, user_id: str) -> None:
        """Take an override back."""
        self._overrides.pop(user_id, None)

    def __len__(self) -> int:
        return len(self._full_at)

    def _sweep(self, now: float) -> None:
        kept = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        for key in list(kept)[: max(0, len(kept) - self._max_buckets // 2)]:
            del kept[key]
        self._full_at = kept
        # Looking at all of them pays off once there may be twice as many.
        self._sweep_at = min(max(1024, 2 * len(kept)), self._max_buckets)
