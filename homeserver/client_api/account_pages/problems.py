"""Errors as users read them on a page."""

from homeserver.protocol.errors import LimitExceeded, MatrixError


def problem_text(error: MatrixError) -> str:
    """The sentence that says what is wrong."""
    if isinstance(error, LimitExceeded):
        seconds = -(-error.retry_after_ms // 1000)
        return (
            f"Too many attempts. Try again in {seconds} {'second' if seconds == 1 else 'seconds'}."
        )
    return f"{str(error).rstrip('.')}."
