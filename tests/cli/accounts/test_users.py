"""`homeserver user`: accounts, from the command line."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appservices.support import registration
from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database


class CommandLine:
    """The command `homeserver`, with a configuration of its own."""

    def __init__(self, config: Path, **settings: object) -> None:
        self._config = config
        self.database = settings.get("database")
        cheap = {"server_name": "example.org", "passwords": {"hash_cost": "lowest"}}
        config.write_text(json.dumps(cheap | settings))

    def __call__(self, *words: str, typed: str = "") -> tuple[int, str]:
        """Run `homeserver user …`; the exit status and all output."""
        done = homeserver("user", *words, "--config", self._config, typed=typed)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def user(tmp_path: Path) -> Iterator[CommandLine]:
    dsn = fresh_database()
    yield CommandLine(tmp_path / "homeserver.yaml", database={"dsn": dsn})
    drop_database(dsn)


def test_an_account_is_added_and_listed(user: CommandLine) -> None:
    """The first administrator of a server is created like this."""
    added = user("add", "alice", "--admin", "--password-stdin", typed="correct horse\n")
    status, listed = user("list")

    assert added == (0, "Added @alice:example.org\n")
    assert status == 0
    assert listed.split()[0] == "@alice:example.org"
    assert listed.split()[2:] == ["admin"]


def test_a_name_is_given_once(user: CommandLine) -> None:
    """No user takes over another account by accident, even after it was deactivated."""
    user("add", "alice", "--password", "correct horse")
    user("deactivate", "alice")

    again = user("add", "@alice:example.org", "--password", "correct horse")

    assert again == (1, "@alice:example.org exists already, or did once\n")


def test_a_name_of_a_bridge_is_given_to_nobody(user: CommandLine, tmp_path: Path) -> None:
    """The bridge could not register its user any more; the message names the registration."""
    file = tmp_path / "irc.yaml"
    file.write_text(json.dumps(registration("irc")))
    user = CommandLine(
        tmp_path / "homeserver.yaml", database=user.database, appservices=[str(file)]
    )

    status, said = user("add", "_irc_bob", "--password", "correct horse")

    assert status == 1
    assert "@_irc_bob:example.org is reserved for the application service irc" in said
    assert user("add", "alice", "--password", "correct horse")[0] == 0


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("add", "a b", "--password", "correct horse"), "User ID may only contain"),
        (("add", "@a:example.com", "--password", "correct horse"), "not a user of example.org"),
        (("add", "alice", "--password", "short"), "at least 8 characters"),
        (("add", "alice"), "use --password-stdin"),
        (("set-password", "nobody", "--password", "correct horse"), "There is no user"),
        (("deactivate", "nobody"), "There is no user"),
    ],
)
def test_errors_are_reported(user: CommandLine, words: tuple[str, ...], reported: str) -> None:
    """A typing error ends in a sentence and changes nothing."""
    status, said = user(*words)

    assert status == 1
    assert reported in said
    assert "Traceback" not in said


def test_an_unavailable_database_is_reported(tmp_path: Path) -> None:
    """It is clear that the error is in the database, not the account."""
    user = CommandLine(tmp_path / "homeserver.yaml", database={"dsn": "host=/nowhere"})

    status, said = user("list")

    assert status == 1
    assert said.startswith("cannot use the database")


def test_the_embedded_database_of_a_stopped_server_is_used() -> None:
    """Accounts can be created before the server runs for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL runs as another user if the tests run as root.
        Path(folder).chmod(0o755)
        user = CommandLine(Path(folder, "homeserver.yaml"))

        added = user("add", "alice", "--password", "correct horse")
        listed = user("list")

    assert added[0] == 0
    assert "Added @alice:example.org\n" in added[1]
    assert listed[1].startswith("@alice:example.org")


def test_an_address_is_added_listed_and_removed(user: CommandLine) -> None:
    """Users log in with a telephone number that an administrator knows to be theirs."""
    user("add", "alice", "--password", "correct horse")

    added = user("add-threepid", "alice", "--phone", "07700 900001", "--country", "GB")
    user("add-threepid", "alice", "--email", "Alice@Example.com")
    status, listed = user("list-threepids", "alice")
    removed = user("remove-threepid", "alice", "--phone", "+44 7700 900001")

    assert added == (0, "Added msisdn 447700900001 to @alice:example.org\n")
    assert status == 0
    assert [line.split()[:2] for line in listed.splitlines()] == [
        ["msisdn", "447700900001"],
        ["email", "alice@example.com"],
    ]
    assert removed == (0, "Removed msisdn 447700900001 from @alice:example.org\n")


def test_an_address_belongs_to_one_account(user: CommandLine) -> None:
    """It is free again when that account is deactivated."""
    for name in ("alice", "bob"):
        user("add", name, "--password", "correct horse")
    user("add-threepid", "alice", "--email", "a@example.com")

    taken = user("add-threepid", "bob", "--email", "a@example.com")
    user("deactivate", "alice")
    free = user("add-threepid", "bob", "--email", "a@example.com")

    assert taken == (1, "a@example.com belongs to another account\n")
    assert free[0] == 0


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("add-threepid", "alice", "--email", "alice"), "Not an e-mail address"),
        (("add-threepid", "alice", "--phone", "07700900001"), "begin the number with +"),
        (("add-threepid", "alice", "--phone", "call me", "--country", "GB"), "Not a telephone"),
        (("add-threepid", "nobody", "--email", "a@example.com"), "There is no user"),
        (("remove-threepid", "nobody", "--email", "a@example.com"), "does not have"),
        (("list-threepids", "nobody"), "There is no user"),
    ],
)
def test_an_invalid_address_is_reported(
    user: CommandLine, words: tuple[str, ...], reported: str
) -> None:
    """A typing error ends in a sentence."""
    status, said = user(*words)

    assert status == 1
    assert reported in said
    assert "Traceback" not in said


PROVIDER = {"kind": "cas", "id": "campus", "name": "Campus", "server_url": "http://cas.example.org"}


@pytest.fixture
def campus_user(tmp_path: Path) -> Iterator[CommandLine]:
    dsn = fresh_database()
    yield CommandLine(
        tmp_path / "homeserver.yaml",
        database={"dsn": dsn},
        public_baseurl="http://matrix.example.org",
        single_sign_on={"providers": [PROVIDER]},
    )
    drop_database(dsn)


def test_an_identity_is_linked_listed_and_removed(campus_user: CommandLine) -> None:
    """An administrator moves existing accounts to single sign-on, each identity to one account."""
    identity = ("--provider", "campus", "--subject", "al1ce")
    for name in ("alice", "bob"):
        campus_user("add", name, "--password", "correct horse")

    linked = campus_user("link-identity", "alice", *identity)
    taken = campus_user("link-identity", "bob", *identity)
    _, listed = campus_user("list-identities", "alice")
    campus_user("link-identity", "bob", "--provider", "campus", "--subject", "b\x1b[31mob")
    _, strange = campus_user("list-identities", "bob")
    removed = campus_user("unlink-identity", "alice", *identity)
    _, empty = campus_user("list-identities", "alice")

    assert linked == (0, "@alice:example.org can sign in as al1ce at campus\n")
    assert taken == (1, "The identity is linked with an account already\n")
    assert listed.split()[:2] == ["campus", "al1ce"]
    assert "\x1b" not in strange
    assert removed == (0, "@alice:example.org can no longer sign in as al1ce at campus\n")
    assert empty == "@alice:example.org has no identities\n"


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("link-identity", "nobody", "--provider", "campus"), "There is no user"),
        (("link-identity", "nobody", "--provider", "google"), "no identity provider 'google'"),
        (("unlink-identity", "nobody", "--provider", "campus"), "does not have this identity"),
    ],
)
def test_an_invalid_identity_is_reported(
    campus_user: CommandLine, words: tuple[str, ...], reported: str
) -> None:
    """A typing error ends in a sentence."""
    status, said = campus_user(*words, "--subject", "al1ce")

    assert status == 1
    assert reported in said
