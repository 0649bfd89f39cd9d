"""The folder `acme` in the data directory: accounts, the certificate, and the failed attempts.

Each file is replaced as a whole: it is written beside the old one, reaches the disk, and takes its
place by a rename. So a crash leaves the old content or the new one, and a certificate is never with
the key of another, as they are one file. Only the server's user can read the folder. All functions
block.

- `certificate.pem`: what new connections get (`certified_keys.py`).
- `accounts.json`: the accounts at authorities, by the URL of the directory.
- `attempts.json`: the failed attempts since the last success.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec
from twisted.logger import Logger

from homeserver.certificates.certified_keys import (
    CertifiedKey,
    new_key,
    parse_pem,
    pem_of_key,
)
from homeserver.certificates.renewal_rules import Attempts
from homeserver.config.errors import CertificateError

MAX_BYTES = 1_048_576  # of a file that is read

log = Logger()


class AcmeAccount(msgspec.Struct, frozen=True):
    """An account at an authority: its private key in PEM, and its URL once it is registered."""

    key: str
    url: str | None = None


class AcmeFolder:
    """The files of one server in `path`."""

    def __init__(self, path: Path) -> None:
        self.certificate_path = path / "certificate.pem"
        self._path = path

    def load_certificate(self) -> CertifiedKey | None:
        """The stored certificate. Raises `CertificateError` if it cannot be used."""
        try:
            text = self._read("certificate.pem")
            return None if text is None else parse_pem(text.decode("ascii"))
        except (OSError, ValueError, CertificateError) as error:
            raise CertificateError(f"{self.certificate_path} cannot be used: {error}") from error

    def save_certificate(self, certificate: CertifiedKey) -> None:
        """Replace the stored certificate. Raises `OSError`."""
        self._write("certificate.pem", certificate.to_pem().encode())

    def account(self, directory: str) -> AcmeAccount:
        """The account at an authority; a new one is stored before it is used. Raises `OSError`."""
        known = self._accounts().get(directory)
        if known is not None:
            return known
        account = AcmeAccount(pem_of_key(new_key()))
        self.save_account(directory, account)
        return account

    def save_account(self, directory: str, account: AcmeAccount) -> None:
        """Replace the account at an authority. Raises `OSError`."""
        accounts = self._accounts() | {directory: account}
        self._write("accounts.json", msgspec.json.encode(accounts))

    def load_attempts(self) -> Attempts:
        """The failed attempts since the last success."""
        try:
            text = self._read("attempts.json")
            return Attempts() if text is None else msgspec.json.decode(text, type=Attempts)
        except (OSError, ValueError) as error:
            log.warn("the record of failed attempts is lost: {error}", error=error)
            return Attempts()

    def save_attempts(self, attempts: Attempts) -> None:
        """Replace the record of failed attempts. Raises `OSError`."""
        self._write("attempts.json", msgspec.json.encode(attempts))

    def _accounts(self) -> dict[str, AcmeAccount]:
        text = self._read("accounts.json")
        try:
            return {} if text is None else msgspec.json.decode(text, type=dict[str, AcmeAccount])
        except ValueError as error:
            log.error("the accounts at authorities are lost: {error}", error=error)
            return {}

    def _read(self, name: str) -> bytes | None:
        """The content of a file; `None` if there is none. Raises `OSError`."""
        try:
            with (self._path / name).open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path / f"{name}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path / name)
            _sync(self._path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise


def _sync(folder: Path) -> None:
    """Have a rename reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
