"""`homeserver registration-token`: tokens for registration, from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database


class Tokens:
    """The command `homeserver registration-token` of a server, and the server's database."""

    def __init__(self, config: Path, dsn: str) -> None:
        self._config = config
        self._dsn = dsn
        config.write_text(json.dumps({"server_name": "example.org", "database": {"dsn": dsn}}))

    def __call__(self, *words: str) -> tuple[int, str]:
        """Run it; the exit status and all output."""
        done = homeserver("registration-token", *words, "--config", self._config)
        return done.returncode, done.stdout + done.stderr

    def execute(self, statement: str) -> None:
        """Change the database."""
        with psycopg.connect(self._dsn) as connection:
            connection.cursor().execute(statement.encode())


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    dsn = fresh_database()
    yield Tokens(tmp_path / "homeserver.yaml", dsn)
    drop_database(dsn)


def test_a_token_is_issued_and_listed(tokens: Tokens) -> None:
    """An administrator sends the printed token to a guest, and sees later if it was used."""
    status, printed = tokens("add", "--uses", "2")
    tokens.execute("UPDATE registration_tokens SET uses = 1")
    tokens("add", "for_ever")

    listed = tokens("list")

    token = printed.strip()
    assert status == 0
    assert len(token) >= 16
    assert token.isalnum()  # nothing that a shell or a link would have to quote
    lines = sorted([f"{token:<34} used 1 of 2", f"{'for_ever':<34} used 0"])
    assert listed == (0, "\n".join(lines) + "\n")


def test_a_token_expires(tokens: Tokens) -> None:
    """The list says until when a token can be used, and of an old one that it cannot."""
    tokens("add", "old")
    tokens.execute("UPDATE registration_tokens SET expires_ms = 60000")
    tokens("add", "young", "--expires-after", "7d")

    _, listed = tokens("list")

    old, young = listed.splitlines()
    assert old.endswith(" used 0, expired 1970-01-01 00:01")
    assert " used 0, expires 2" in young


def test_a_token_is_withdrawn(tokens: Tokens) -> None:
    """A token that has become public is of no use to anybody."""
    tokens("add", "leaked")

    assert tokens("remove", "leaked") == (0, "Withdrew leaked\n")
    assert tokens("list") == (0, "There are no tokens.\n")
    assert tokens("remove", "leaked") == (1, "there is no token leaked\n")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("a b",), "a token has 1 to 64 of the characters"),
        (("t" * 65,), "a token has 1 to 64 of the characters"),
        (("twice",), "the token twice exists already"),
        (("none", "--uses", "0"), "from 1 to 1000000000"),
        (("none", "--uses", "many"), "--uses"),
        (("none", "--expires-after", "soon"), "a number and s, m, h or d"),
        (("none", "--expires-after", "9999999d"), "at most 36500d"),
    ],
)
def test_a_useless_token_is_not_issued(
    tokens: Tokens, words: tuple[str, ...], reported: str
) -> None:
    """The message says what is wrong, and nothing is stored."""
    tokens("add", "twice")

    status, said = tokens("add", *words)

    assert status != 0
    assert reported in said
    assert tokens("list")[1].split()[0] == "twice"
    assert len(tokens("list")[1].splitlines()) == 1
