"""Orders of certificates: each is placed by a process of its own (`obtain.py`), and then checked.

The process reads what an authority sends, which may be anything. So it has limits of memory, time
and output, and never gets the private key of the certificate. All of this blocks, in a thread of
its own: the registration is stored before the order continues, and a challenge is served before the
authority is asked to request it.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from homeserver.certificates.acme_folder import AcmeAccount, AcmeFolder
from homeserver.certificates.certified_keys import (
    CertifiedKey,
    certified,
    new_key,
    signing_request,
)
from homeserver.certificates.challenges import Challenges
from homeserver.certificates.renewal_rules import Subject
from homeserver.concurrency.child_processes import lower_priority, read_line, start_program
from homeserver.config.sections.acme import AcmeSettings
from homeserver.version import VERSION

PROGRAM = Path(__file__).resolve().with_name("obtain.py")  # not imported: it loads megabytes
ORDER_SECONDS = 300
MAX_LINE = 262_144  # bytes
MAX_LINES = 300
MAX_ERROR = 2_000  # characters


class OrderFailed(Exception):
    """No certificate was issued. `is_refusal` is false if the authority was not reached."""

    def __init__(self, reason: str, *, is_refusal: bool = True) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal


class OrderCancelled(Exception):
    """The server stops."""


class Orders:
    """The orders of one server, one at a time."""

    def __init__(
        self,
        settings: AcmeSettings,
        folder: AcmeFolder,
        challenges: Challenges,
        *,
        program: Path = PROGRAM,
        seconds: int = ORDER_SECONDS,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._challenges = challenges
        self._program = program
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cancelled = False

    def place(self, subject: Subject) -> CertifiedKey:
        """Obtain a certificate with a new key. It blocks for minutes.

        Raises `OrderFailed`, `OrderCancelled`, `CertificateError` for a certificate that does not
        fit, and `OSError` if the account cannot be stored.
        """
        key = new_key()
        account = self._folder.account(subject.directory)
        order = self._describe(subject, account) | {"csr": signing_request(subject, key)}
        try:
            chain = self._run(order, lambda url: self._registered(subject.directory, account, url))
        finally:
            self._challenges.clear()
        return certified(subject, key, chain)

    def cancel(self) -> None:
        """End the order in progress, and begin none. Any thread may call it."""
        self._is_cancelled = True
        if self._process is not None:
            self._process.kill()

    def _describe(self, subject: Subject, account: AcmeAccount) -> dict[str, Any]:
        settings = self._settings
        external = settings.external_account
        return {
            "directory": subject.directory,
            "account_key": account.key,
            "account": account.url,
            "email": settings.email,
            "external_account": None if external is None else msgspec.to_builtins(external),
            "ca_file": None if settings.ca_file is None else str(settings.ca_file),
            "user_agent": f"homeserver/{VERSION}",
            "seconds": self._seconds,
        }

    def _registered(self, directory: str, account: AcmeAccount, url: str) -> None:
        self._folder.save_account(directory, msgspec.structs.replace(account, url=url))

    def _run(self, order: dict[str, Any], on_account: Callable[[str], None]) -> str:
        with start_program([str(self._program)], bufsize=0) as process:
            self._process = process
            try:
                if self._is_cancelled:
                    raise OrderCancelled
                lower_priority(process.pid)
                return self._converse(process, order, on_account)
            except (OSError, ValueError, KeyError, TypeError) as error:
                if self._is_cancelled:
                    raise OrderCancelled from error
                if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                    raise
                raise OrderFailed(f"the process of the order failed: {error}") from error
            finally:
                process.kill()
                self._process = None

    def _converse(
        self,
        process: subprocess.Popen[bytes],
        order: dict[str, Any],
        on_account: Callable[[str], None],
    ) -> str:
        assert process.stdin is not None, "the input is a pipe"
        assert process.stdout is not None, "the output is a pipe"
        message: Any = order
        end = time.monotonic() + self._seconds
        for _ in range(MAX_LINES):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            left = max(0.0, end - time.monotonic())
            said = json.loads(read_line(process.stdout.fileno(), left, MAX_LINE))
            if "error" in said:
                raise OrderFailed(_one_line(said["error"]), is_refusal=said["is_refusal"])
            if "certificate" in said:
                return str(said["certificate"])
            if "account" in said:
                on_account(str(said["account"]))
            else:
                challenge = said["challenge"]
                self._challenges.add(challenge["token"], challenge["key_authorization"])
            message = {}
        raise ValueError("it does not end")


def _one_line(text: str) -> str:
    """What an authority said, for the log."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_ERROR])
