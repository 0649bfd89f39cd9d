"""Credentials for a TURN server."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from homeserver.accounts.credentials.turn_credentials import TurnCredentials
from homeserver.config.errors import ConfigError
from homeserver.config.sections.calls import TurnSettings

ALICE = "@alice:example.org"
URIS = ("turn:turn.example.org?transport=udp",)


class WallClock(Clock):
    """A clock whose wall time is that of the test."""

    def wall_seconds(self) -> float:
        return 1_700_000_000.9


def issue(**settings: Any) -> dict[str, Any]:
    """Alice's credentials."""
    return TurnCredentials(TurnSettings(**settings), WallClock()).issue(ALICE)


def test_a_shared_secret_signs_user_and_expiry() -> None:
    """The TURN server computes the same HMAC, and knows when the credentials end."""
    got = issue(uris=URIS, shared_secret="north", lifetime=3_600)

    assert got == {
        "username": "1700003600:@alice:example.org",
        "password": "6cEh1+OSEPFM5XsksE7KvMgzX1c=",
        "ttl": 3_600,
        "uris": [*URIS],
    }


def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """Deployment tools write secrets to files, with a line break at the end."""
    file = tmp_path / "secret"
    file.write_text("north\n", encoding="utf-8")

    from_file = issue(uris=URIS, shared_secret_file=file)

    assert from_file == issue(uris=URIS, shared_secret="north")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_without_secret_prevents_the_start(tmp_path: Path, content: bytes | None) -> None:
    """A server that gave out credentials that nobody accepts would be found out in a call."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"turn\.shared_secret_file"):
        issue(uris=URIS, shared_secret_file=file)


def test_static_credentials_are_the_same_for_all() -> None:
    """Hosted TURN servers give a user name and a password."""
    got = issue(uris=URIS, username="u", password="p")

    assert (got["username"], got["password"], got["ttl"]) == ("u", "p", 86_400)


def test_without_addresses_there_is_nothing() -> None:
    """Clients call without a relay then."""
    assert issue(shared_secret="north") == {}
