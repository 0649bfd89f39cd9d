"""Processes that the server starts."""

import errno
import os

import pytest

from homeserver.concurrency.child_processes import lower_priority, read_line


def test_a_service_that_may_not_change_priorities_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The systemd unit forbids it; thumbnails and certificates are made all the same."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)

    lower_priority(os.getpid())


@pytest.mark.parametrize(
    ("written", "outcome"),
    [(b"line\n", b"line\n"), (b"", "ended"), (b"li", "ended"), (b"x" * 21, "too long")],
)
def test_line_is_read_or_refused(written: bytes, outcome: bytes | str) -> None:
    """Within its size, and only if it is whole."""
    reading, writing = os.pipe()
    os.write(writing, written)
    os.close(writing)
    try:
        if isinstance(outcome, bytes):
            assert read_line(reading, 5, 20) == outcome
        else:
            with pytest.raises(ValueError, match=outcome):
                read_line(reading, 5, 20)
    finally:
        os.close(reading)


def test_line_that_does_not_come_is_not_waited_for() -> None:
    """A process may hang."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(ValueError, match="no result within"):
            read_line(reading, 0.05, 20)
    finally:
        os.close(reading)
        os.close(writing)
