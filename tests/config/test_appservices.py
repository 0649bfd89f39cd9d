"""Registration files: what is read, and how errors name their place and their remedy."""

from pathlib import Path

import pytest

from homeserver.config.appservices import load_registrations
from homeserver.config.errors import ConfigError

IRC = """
id: irc
url: http://127.0.0.1:9999/
as_token: the token of the bridge
hs_token: the token of the server
sender_localpart: _irc_bot
rate_limited: false
protocols: [irc]
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
some.key.of.another.server: true
namespaces:
  users:
    - exclusive: true
      regex: '@_irc_.*'
  aliases:
    - {exclusive: false, regex: '#irc_.*'}
"""


def load(folder: Path, *texts: str) -> list:
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    return load_registrations([], folder, "example.org")


def test_a_registration_is_read(tmp_path: Path) -> None:
    """What a bridge writes for other servers means the same here."""
    (irc,) = load(tmp_path, IRC)

    assert (irc.id, irc.url, irc.sender) == (
        "irc",
        "http://127.0.0.1:9999",
        "@_irc_bot:example.org",
    )
    assert (irc.as_token, irc.hs_token) == ("the token of the bridge", "the token of the server")
    assert irc.receives_ephemeral
    assert irc.receives_encryption
    assert not irc.may_import_history
    assert not irc.rate_limited
    assert irc.protocols == ("irc",)
    assert irc.covers_user("@_irc_bob:example.org")
    assert irc.owns_user("@_irc_bob:example.org")
    assert irc.owns_user("@_irc_bot:example.org")
    assert irc.aliases.covers("#irc_matrix:example.org")
    assert not irc.aliases.covers_exclusively("#irc_matrix:example.org")


def test_users_of_other_servers_are_never_covered(tmp_path: Path) -> None:
    """A bridge does not see the events of people who look like its users elsewhere."""
    (irc,) = load(tmp_path, IRC)

    assert not irc.covers_user("@_irc_bob:elsewhere.org")
    assert not irc.covers_user("@_irc_bob:example.org.evil.org")


def test_without_a_folder_there_are_none(tmp_path: Path) -> None:
    """Most servers have no bridges."""
    assert load_registrations([], tmp_path / "missing", "example.org") == []


def test_files_outside_of_the_folder(tmp_path: Path) -> None:
    """A file may stay where the bridge wrote it."""
    (tmp_path / "irc.registration").write_text(IRC)

    (irc,) = load_registrations([tmp_path / "irc.registration"], tmp_path, "example.org")

    assert irc.id == "irc"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("id: irc", "id: 7"), "line 2: id: expected text, got 7 (put it in quotes)"),
        (("id: irc\n", ""), "line 2: id: missing, but required"),
        (("url: http://127.0.0.1:9999/", "url: localhost"), "line 3: url: expected a web address"),
        (("url: http://127.0.0.1:9999/", "url: [1]"), "line 3: url: expected a web address"),
        (("as_token: the token of the bridge", "as_token: short"), "line 4: as_token: expected"),
        (
            ("as_token: the token of the bridge", "as_token: 123456789"),
            "line 4: as_token: expected text, got something else (put it in quotes)",
        ),
        (("_irc_bot", "'@_irc_bot:example.org'"), "line 6: sender_localpart: expected the part"),
        (("_irc_bot", "'a b'"), "line 6: sender_localpart: "),
        (("rate_limited: false", "rate_limited: 1"), "line 7: rate_limited: expected true"),
        (("[irc]", "irc"), "line 8: protocols: expected a list of names"),
        (("'@_irc_.*'", "'@_irc_(.*'"), "namespaces.users[0].regex: not a regular expression"),
        (("exclusive: true", "exclusive: 1"), "namespaces.users[0].exclusive: expected true"),
        (("{exclusive: false, regex: '#irc_.*'}", "'#irc'"), "namespaces.aliases[0]: expected"),
        (("users:\n", "users: {}\n  others:\n"), "namespaces.users: expected a list"),
        (("id: irc", "id: ["), "not valid YAML"),
    ],
)
def test_errors_name_line_and_remedy(tmp_path: Path, change: tuple, problem: str) -> None:
    """The operator of a bridge finds the mistake without reading the specification."""
    with pytest.raises(ConfigError, match=r"0\.yaml") as caught:
        load(tmp_path, IRC.replace(*change))

    assert problem in str(caught.value)


def test_all_errors_of_all_files_are_reported(tmp_path: Path) -> None:
    """One attempt shows everything that has to be fixed."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, IRC.replace("id: irc", ""), IRC.replace("url:", "ur:"), "[]", "a: \xff\0")

    text = str(caught.value)
    assert "0.yaml, line 3: id: missing" in text
    assert "2.yaml, line 1: expected a registration" in text
    assert "3.yaml, line 1: not valid YAML" in text


def test_ids_and_tokens_are_unique(tmp_path: Path) -> None:
    """A token must name one application service."""
    with pytest.raises(ConfigError, match="the id 'irc' is that of"):
        load(tmp_path, IRC, IRC)
    with pytest.raises(ConfigError, match="the as_token is that of"):
        load(tmp_path, IRC, IRC.replace("id: irc", "id: other"))
