"""The folder of a certificate: private, and never half written."""

import errno
import os
import stat
from pathlib import Path

import pytest

from homeserver.certificates.acme_folder import AcmeAccount, AcmeFolder
from homeserver.certificates.renewal_rules import Attempts
from homeserver.config.errors import CertificateError
from tests.certificates.authority import DIRECTORY, SUBJECT, obtain


@pytest.fixture
def folder(tmp_path: Path) -> AcmeFolder:
    return AcmeFolder(tmp_path / "data" / "acme")


def test_new_folder_is_empty(folder: AcmeFolder) -> None:
    """The first start finds nothing."""
    assert folder.load_certificate() is None
    assert folder.load_attempts() == Attempts()


def test_only_the_owner_can_read_what_is_stored(folder: AcmeFolder) -> None:
    """The folder has private keys."""
    folder.save_certificate(obtain())
    folder.save_attempts(Attempts())
    folder.account(DIRECTORY)

    path = folder.certificate_path.parent
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.iterdir()} == {0o600}
    assert len([*path.iterdir()]) == 3


def test_values_come_back(folder: AcmeFolder) -> None:
    """A restart continues where the server was."""
    attempts = Attempts().failed(SUBJECT, 17.5, "refused — “why”")
    account = folder.account(DIRECTORY)

    folder.save_attempts(attempts)
    folder.save_account(DIRECTORY, AcmeAccount(account.key, "https://ca/1"))
    folder.account("https://other/directory")

    assert folder.load_attempts() == attempts
    assert folder.account(DIRECTORY) == AcmeAccount(account.key, "https://ca/1")


def test_key_of_an_account_is_stored_before_it_is_used(folder: AcmeFolder) -> None:
    """A crash after the registration would lose the account otherwise."""
    assert folder.account(DIRECTORY) == folder.account(DIRECTORY)


def test_full_disk_leaves_the_old_certificate(
    folder: AcmeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no file of its own."""
    old = obtain()
    folder.save_certificate(old)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        folder.save_certificate(obtain())

    held = folder.load_certificate()
    assert held is not None
    assert held.chain == old.chain
    assert [each.name for each in folder.certificate_path.parent.iterdir()] == ["certificate.pem"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\x00", b"-----BEGIN PRIVATE KEY-----"])
def test_damaged_files_are_named_or_replaced(folder: AcmeFolder, content: bytes) -> None:
    """A server starts all the same."""
    path = folder.certificate_path.parent
    path.mkdir(parents=True)
    for name in ("certificate.pem", "accounts.json", "attempts.json"):
        (path / name).write_bytes(content)

    with pytest.raises(CertificateError, match=r"certificate\.pem"):
        folder.load_certificate()
    assert folder.load_attempts() == Attempts()
    assert folder.account(DIRECTORY).url is None
