"""Background jobs in tests: without the pauses that leave a busy server to its users."""

from twisted.trial.unittest import TestCase

from homeserver.background_jobs import job_runner


def hurry_jobs(case: TestCase) -> None:
    """Have the server that `case` starts do its jobs at once."""
    case.patch(job_runner, "SHARE", 0.0)
    case.patch(job_runner, "POLL_SECONDS", 0.1)
