"""Calls that wait for the disk, in the threads for media files, with the errors that clients see.

A full disk, too many open files and too many waiting calls pass: a client is asked to come back.
"""

import errno
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.concurrency.thread_pools import PoolFull, ThreadPool
from homeserver.protocol.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})


class NoSpace(Unavailable):
    """The disk is full, or nearly so."""

    def __init__(self) -> None:
        super().__init__("The server has no space for files at the moment")


class Disk:
    """The disk of the media folder.

    `min_free_space` bytes of it are left to others.
    """

    def __init__(self, pool: ThreadPool, *, min_free_space: int) -> None:
        self._pool = pool
        self._min_free_space = min_free_space

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call in a thread. Raises `Unavailable`, or what the call raises."""
        try:
            return await self._pool.run(function, *args, **kwargs)
        except PoolFull as error:
            raise Unavailable("The server has too much to read and write") from error
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace from error
            if error.errno in _TOO_MANY:
                raise Unavailable("The server has too many open files") from error
            raise

    async def open(self, function: Callable[[], int]) -> int:
        """The file descriptor that a call in a thread returns. Raises what `run` raises.

        If the caller is cancelled, the descriptor is closed as soon as it exists.
        """
        opened: Deferred[int] = Deferred()

        def pass_on(outcome: int | Failure) -> None:
            if not opened.called:
                opened.callback(outcome)
            elif isinstance(outcome, int):
                os.close(outcome)

        Deferred.fromCoroutine(self.run(function)).addBoth(pass_on)
        return await opened

    def check_space(self, place: int | str | os.PathLike[str], size: int = 0) -> None:
        """Raise `NoSpace` if there is no room for `size` more bytes; for threads."""
        disk = os.statvfs(place)
        if disk.f_bavail * disk.f_frsize < self._min_free_space + size:
            raise NoSpace
