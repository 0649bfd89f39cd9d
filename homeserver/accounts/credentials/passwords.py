"""Passwords: hashed with argon2id, in threads of their own.

A hash takes tens of milliseconds and 46 MiB on purpose, so at most two are computed at once and few
may wait: a flood of log-ins slows down other log-ins, and nothing else. Nor does any other work in
threads delay a log-in.

Spec: https://spec.matrix.org/v1.19/client-server-api/#password-management
"""

from collections.abc import Callable
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from homeserver.concurrency.thread_pools import PoolFull, ThreadPool
from homeserver.config.sections.accounts import PasswordSettings
from homeserver.protocol.errors import LimitExceeded, WeakPassword

MAX_PASSWORD_BYTES = 1024
MAX_CONCURRENT_HASHES = 2
MAX_WAITING = 100
RETRY_AFTER_MS = 5_000  # by then, the log-ins that wait now are done

NORMAL = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
LOWEST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

T = TypeVar("T")


class Passwords:
    """Makes and checks password hashes."""

    def __init__(self, reactor: Any, settings: PasswordSettings) -> None:
        self._minimum_length = settings.minimum_length
        self._hasher = NORMAL if settings.hash_cost == "normal" else LOWEST
        self._threads = ThreadPool(
            reactor, "passwords", size=MAX_CONCURRENT_HASHES, max_waiting=MAX_WAITING
        )
        # Unknown users are checked against this, so that they take as long as known ones.
        self._unknown_user_hash = self._hasher.hash("")

    def check_strength(self, password: str) -> None:
        """Raise `WeakPassword` where a new password does not meet the policy."""
        if len(password) < self._minimum_length:
            raise WeakPassword(f"The password must have at least {self._minimum_length} characters")
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            raise WeakPassword(f"The password must not exceed {MAX_PASSWORD_BYTES} bytes")

    async def hash(self, password: str) -> str:
        """The hash to store for a password. Raises `LimitExceeded` where too many wait."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether this is the password of a hash; nothing matches `None`, in the same time."""
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        stored = password_hash or self._unknown_user_hash
        return await self._in_thread(lambda: self._verify(stored, password)) and (
            password_hash is not None
        )

    def is_outdated(self, password_hash: str) -> bool:
        """Whether a hash was made at another cost than the configured one."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._hasher is LOWEST:
            return work()  # faster than passing it to a thread
        try:
            return await self._threads.run(work)
        except PoolFull:
            raise LimitExceeded(
                RETRY_AFTER_MS, "Too many people are logging in; try again in a moment"
            ) from None
