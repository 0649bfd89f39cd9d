"""The rate limits of users and addresses, shared by all that count actions of theirs."""

from typing import Any

from homeserver.config.settings import Settings
from homeserver.web.rate_limits import RateLimits


def rate_limits_of(reactor: Any, settings: Settings) -> RateLimits:
    """The limits that are configured, with those of single users; none where they are off."""
    rates = settings.rate_limits
    limits = RateLimits(reactor, rates.actions() if rates.enabled else {})
    for user in rates.users:
        limits.override(user.user_id, None if user.unlimited else user)
    return limits
