"""The command `homeserver`: command lines and the printed messages."""

import json
import stat
from pathlib import Path

import pytest

from homeserver.cli.main import main
from homeserver.config.loading import load_settings
from homeserver.version import VERSION


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A report of a defect can say which version it is about."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"homeserver {VERSION}\n"


def test_a_command_line_without_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """A new user sees what the program can do."""
    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["user", "list"]])
def test_wrong_configuration_ends_in_a_sentence(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing mistake in the configuration is no crash."""
    Path("homeserver.yaml").write_text("serve_name: x")

    status = main(command)

    printed = capsys.readouterr().err
    assert status == 1
    assert (
        printed == "homeserver.yaml, line 1: serve_name: unknown key; did you mean server_name?\n"
    )


def test_init_writes_a_configuration_and_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new server is one command away, and its secrets are its owner's alone."""
    status = main(["init", "example.org"])

    assert status == 0
    assert "server_name: example.org\n" in Path("homeserver.yaml").read_text()
    for secret in ("homeserver.yaml", "data/signing.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    assert " run" in capsys.readouterr().out


def test_init_replaces_a_configuration_only_on_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A configuration with passwords in it is not lost by a second try; the key never is."""
    main(["init", "example.org"])
    key = Path("data/signing.key").read_bytes()

    refused = main(["init", "example.com"])
    printed = capsys.readouterr().err
    done = main(["init", "example.com", "--force"])

    assert (refused, done) == (1, 0)
    assert printed.startswith("homeserver.yaml exists; to replace it: ")
    assert "server_name: example.com\n" in Path("homeserver.yaml").read_text()
    assert Path("data/signing.key").read_bytes() == key


def test_init_refuses_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The name cannot be changed later, so a wrong one must not get in."""
    status = main(["init", "https://example.org"])

    assert status == 1
    assert "not a server name" in capsys.readouterr().err
    assert not Path("homeserver.yaml").exists()


def test_log_that_cannot_be_written_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server without a log could not be diagnosed."""
    (tmp_path / "file").touch()
    Path("homeserver.yaml").write_text(json.dumps({"log": {"file": "file/server.log"}}))

    status = main(["run"])

    assert status == 1
    assert "cannot write the log" in capsys.readouterr().err


def test_init_with_acme_writes_a_public_server(capsys: pytest.CaptureFixture[str]) -> None:
    """One command, and `homeserver run` serves https://example.org to clients and servers."""
    status = main(["init", "--acme", "admin@example.org", "Example.org"])

    settings = load_settings(Path("homeserver.yaml"))
    https, http = settings.listeners
    assert status == 0
    assert (https.port, https.resources) == (443, ("client", "federation"))
    assert (http.port, http.resources, http.tls) == (80, ("acme",), None)
    assert {*https.addresses, *http.addresses} == {"0.0.0.0", "::"}
    assert settings.public_baseurl == "https://example.org"
    assert settings.federation.delegated_to == "example.org:443"
    assert settings.acme_names == ("example.org",)
    assert settings.acme.email == "admin@example.org"
    assert "agree to the terms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "email", "reason"),
    [
        ("192.0.2.1", "a@example.org", "'192.0.2.1' is not a host name"),
        ("example.org:8448", "a@example.org", "'example.org:8448' is not a host name"),
        ("example.org", "admin", "not an e-mail address"),
    ],
)
def test_init_with_acme_refuses_what_gets_no_certificate(
    name: str, email: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a key is made for a name that cannot be changed later."""
    status = main(["init", "--acme", email, name])

    assert status == 1
    assert reason in capsys.readouterr().err
    assert [*Path().iterdir()] == []
