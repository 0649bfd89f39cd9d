"""Loading homeserver.yaml: the resulting settings, and the reported errors."""

from pathlib import Path

import pytest

from homeserver.config.errors import ConfigError
from homeserver.config.loading import load_settings, parse_settings
from homeserver.config.settings import Settings

WOULD_BE_SENT = "would be sent unencrypted: set email.tls to required or implicit"


def refusal(text: str) -> str:
    """The message about a configuration that is refused."""
    with pytest.raises(ConfigError) as refused:
        parse_settings(text)
    return str(refused.value)


def refusal_of_one_line(text: str) -> str:
    """The message about a one-line configuration, without the number of the line."""
    return refusal(text).removeprefix("line 1: ")


def test_no_file_means_a_working_server_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who just wants to try the server writes no configuration."""
    monkeypatch.chdir(tmp_path)

    settings = load_settings(None)

    assert settings.server_name == "localhost"
    assert settings.data_dir == tmp_path / "data"
    assert settings.signing_key_path == tmp_path / "data" / "signing.key"
    assert [(one.port, one.addresses) for one in settings.listeners] == [
        (8008, ("127.0.0.1", "::1"))
    ]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A server finds its data from whatever directory it is started."""
    config = tmp_path / "etc" / "homeserver.yaml"
    config.parent.mkdir()
    config.write_text("data_dir: ../var\nlog: {file: /log/file}\nlisteners: [{path: run/socket}]")

    settings = load_settings(config)

    assert settings.data_dir == tmp_path / "etc" / ".." / "var"
    assert settings.signing_key_path == tmp_path / "etc" / ".." / "var" / "signing.key"
    assert settings.log.file == Path("/log/file")
    assert settings.listeners[0].path == tmp_path / "etc" / "run" / "socket"


def test_a_key_without_a_value_keeps_its_default() -> None:
    """A section whose lines are all commented out is not an error."""
    settings, _ = parse_settings("database:\n  pool_size:\nregistration:\n")

    assert settings == Settings()


def test_null_is_no_limit_where_it_is_allowed() -> None:
    """What is not allowed to be null keeps its default, as a key without a value does."""
    settings, _ = parse_settings(
        "media: {user_quota: null, user_files: ~, max_upload: null}\ndatabase: null"
    )
    empty, _ = parse_settings("media:\n  user_quota:\n  user_files:\n")

    assert (settings.media.user_quota, settings.media.user_files) == (None, None)
    assert settings.media.max_upload == Settings().media.max_upload
    assert empty == Settings()


def test_null_of_an_anchor_is_no_limit() -> None:
    """The value is the same, wherever the file has it."""
    settings, _ = parse_settings("media: {user_quota: &none null, user_files: *none}")

    assert (settings.media.user_quota, settings.media.user_files) == (None, None)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            "database: {dns: x}",
            "database.dns: unknown key; did you mean database.dsn?",
        ),
        ("serve_name: x", "serve_name: unknown key; did you mean server_name?"),
        ("pool_size: 3", "pool_size: unknown key; did you mean database.pool_size?"),
        (
            "listeners: [{prot: 3}]",
            "listeners[0].prot: unknown key; did you mean listeners[0].port?",
        ),
        ("xyzzy: 3", "xyzzy: unknown key; remove it"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(text: str, reported: str) -> None:
    """A misspelt setting that is silently ignored would be found too late."""
    assert refusal_of_one_line(text) == reported


def test_all_unknown_keys_are_reported_at_once() -> None:
    """The operator can correct all of them at once."""
    assert len(refusal("a: 1\nb: 2\nlog: {c: 3}").splitlines()) == 3


def test_every_error_is_reported_at_once_with_its_line() -> None:
    """Of all kinds: keys, values, missing settings, and settings that contradict each other."""
    reported = refusal(
        """\
server_name: '@a:b'
server_nam: example.org
listeners:
  - port: 70000
  - port: 8008
    bind: [127.0.0.1, here, there]
  - resources: [client, clients]
    prot: 8009
  - port: 8010
    path: socket
    tls:
      certificate: tls.crt
database:
  pool_size: many
  pool_size: 3
registration:
  enabled: perhaps
  email_required: true
trusted_proxies: [proxy, 10.0.0.0/8, 10.0.0.0/99]
email: {smtp_host: mx, smtp_user: me}
rate_limits:
  login: {burst: 3}
7: 8
"""
    )

    assert reported.splitlines() == [
        "line 1: server_name: '@a:b' is not a server name",
        "line 2: server_nam: unknown key; did you mean server_name?",
        "line 4: listeners[0].port: expected a whole number from 0 to 65535, got 70000",
        "line 6: listeners[1]: bind: 'here' is not an IP address",
        "line 6: listeners[1]: bind: 'there' is not an IP address",
        (
            "line 7: listeners[2].resources[1]: expected one of acme, client, federation, health,"
            " metrics"
        ),
        "line 8: listeners[2].prot: unknown key; did you mean listeners[2].port?",
        "line 10: listeners[3]: a listener has either a port or a path",
        "line 12: listeners[3].tls: tls needs a certificate and a private_key, or acme: true",
        "line 14: database.pool_size: expected a whole number of at least 1, got text",
        "line 15: not valid YAML: the key 'pool_size' occurs twice",
        "line 17: registration.enabled: expected true or false, got text",
        "line 19: trusted_proxies: '10.0.0.0/99' is neither an address nor a network",
        "line 19: trusted_proxies: 'proxy' is neither an address nor a network",
        "line 20: email: email needs both a smtp_user and a smtp_password, or neither",
        "line 20: email: email.from is missing",
        f"line 20: email: email.smtp_password {WOULD_BE_SENT}",
        "line 22: rate_limits.login.per_second: missing, but required",
        "line 23: not valid YAML: a key must be text",
    ]


def test_consequences_of_another_error_are_not_reported() -> None:
    """A wrong port is not also reported as missing, nor is an emptied list reported."""
    assert len(refusal("listeners: [{port: many}]").splitlines()) == 1
    assert len(refusal("recaptcha: {public_key: 3, private_key: x}").splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "log: &log {log: *log}", "a: 2026-99-99", "? [a]\n: b", "a: !!python/x y"],
)
def test_strange_yaml_is_refused_with_a_sentence(text: str) -> None:
    """No text causes a traceback."""
    assert refusal(text).startswith("line 1: ")


def test_unknown_keys_are_only_warned_of_if_the_file_says_so() -> None:
    """A configuration for a newer server still runs an older one."""
    settings, unknown = parse_settings("unknown_keys: warn\nvoice: {}\nlog: {level: ERROR}")

    assert settings.log.level == "ERROR"
    assert unknown == ["line 2: voice: unknown key; remove it"]


def test_settings_are_still_known_by_their_former_names() -> None:
    """An operator who updates the server changes the file when it suits them."""
    settings, warnings = parse_settings("log: {}\ndatabase:\n  night: 5")

    assert settings.database.maintenance_hour == 5
    assert warnings == [
        "line 3: database.night was renamed to maintenance_hour; the old name will be removed"
    ]


def test_a_wrong_value_is_shown_where_the_file_has_it_by_its_former_name() -> None:
    """The operator finds the line."""
    with pytest.raises(ConfigError, match=r"^line 3: database\.night: "):
        parse_settings("log: {}\ndatabase:\n  night: 25")


def test_a_setting_has_one_name_at_a_time() -> None:
    """Of two values for one setting, neither is dropped silently."""
    with pytest.raises(ConfigError, match=r"database\.night: unknown key"):
        parse_settings("database: {night: 5, maintenance_hour: 6}")


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            "database: {pool_size: many}",
            "database.pool_size: expected a whole number of at least 1, got text",
        ),
        (
            "database: {pool_size: 0}",
            "database.pool_size: expected a whole number of at least 1, got 0",
        ),
        (
            "rooms: {default_version: 10}",
            "rooms.default_version: expected text, got 10 (put it in quotes)",
        ),
        ("rooms: {default_version: '99'}", "rooms: there is no room version '99'"),
        (
            "registration: {enabled: 1}",
            "registration.enabled: expected true or false, got 1",
        ),
        (
            "log: {level: loud}",
            "log.level: expected one of CRITICAL, DEBUG, ERROR, INFO, WARN",
        ),
        ("log: {file: 3}", "log.file: expected a path, got 3"),
        ("database: 3", "database: expected a section (key: value), got 3"),
        (
            "listeners: {port: 3}",
            "listeners: expected a list, not empty, of sections (key: value), got a section",
        ),
        (
            "listeners: [{port: 70000}]",
            "listeners[0].port: expected a whole number from 0 to 65535, got 70000",
        ),
        (
            "listeners: [{port: 3, tls: {private_key: k}}]",
            "listeners[0].tls: tls needs a certificate and a private_key, or acme: true",
        ),
        (
            "listeners: [{port: 3, bind: example.org}]",
            "listeners[0]: bind: 'example.org' is not an IP address",
        ),
        ("listeners: [{}]", "listeners[0]: a listener has either a port or a path"),
        (
            "trusted_proxies: [proxy]",
            "trusted_proxies: 'proxy' is neither an address nor a network",
        ),
        ("server_name: '@a:b'", "server_name: '@a:b' is not a server name"),
        (
            "federation: {delegated_to: 'https://example.org'}",
            "federation: delegated_to: 'https://example.org' is not a host with or without port",
        ),
        (
            "rate_limits: {login: {burst: 3}}",
            "rate_limits.login.per_second: missing, but required",
        ),
        ("- 1", "expected a section (key: value) at the top"),
        ("log: {level: INFO}\nlog: {}", "line 2: not valid YAML: the key 'log' occurs twice"),
        ("1: 2", "not valid YAML: a key must be text"),
    ],
)
def test_wrong_value_is_reported_with_its_place_and_what_was_expected(
    text: str, reported: str
) -> None:
    """The operator learns where to look and what to write."""
    assert refusal_of_one_line(text) == reported


def test_broken_yaml_is_reported_with_its_line() -> None:
    """A missing bracket is reported with its place."""
    assert refusal("log: {\n\nx").startswith("line 3: not valid YAML")


def test_messages_name_the_file_in_every_line(tmp_path: Path) -> None:
    """With several files, it is clear which one is meant."""
    config = tmp_path / "homeserver.yaml"
    config.write_text("a: 1\nb: 2")

    with pytest.raises(ConfigError) as refused:
        load_settings(config)

    assert str(refused.value).splitlines() == [
        f"{config}, line 1: a: unknown key; remove it",
        f"{config}, line 2: b: unknown key; remove it",
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read_is_reported(tmp_path: Path, content: bytes | None) -> None:
    """A wrong path ends in a sentence, not in a traceback."""
    config = tmp_path / "homeserver.yaml"
    if content is not None:
        config.write_bytes(content)

    with pytest.raises(ConfigError, match=str(config)):
        load_settings(config)


def test_secrets_are_in_no_message_and_no_representation() -> None:
    """A settings object or an error in a log reveals no password."""
    settings, _ = parse_settings("registration: {shared_secret: swordfish}")

    assert "swordfish" not in repr(settings) + repr(settings.registration)
    assert "fish" not in refusal("registration: {shared_secret: fish}")
    assert "swordfish" not in refusal("database: swordfish")


def test_settings_of_the_outside_test_suites_are_understood() -> None:
    """Test suites and operators rely on these keys."""
    text = """
        unknown_keys: warn
        server_name: 127.0.0.1:8800
        public_baseurl: https://127.0.0.1:8800
        data_dir: data
        signing_key_path: signing.key
        listeners:
          - port: 8800
            bind: 127.0.0.1
            tls: {certificate: tls.crt, private_key: tls.key}
            resources: [client, federation]
        database: {dsn: 'postgresql://user@host/name'}
        registration: {enabled: true, guests: true, shared_secret: reg_secret}
        passwords: {hash_cost: lowest}
        rate_limits: {enabled: false}
        rooms: {default_version: '10'}
        presence: {enabled: true}
        room_directory: {allow_publishing: true, public_without_login: true}
        log: {file: server.log, level: INFO}
    """

    settings, unknown = parse_settings(text)

    assert unknown == []
    assert settings.listeners[0].addresses == ("127.0.0.1",)
    assert settings.rooms.default_version == "10"
