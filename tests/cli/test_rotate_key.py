"""`homeserver rotate-key`: a new key, without invalidating old signatures."""

from pathlib import Path

import pytest
import yaml

from homeserver.cli.main import main
from homeserver.config.loading import load_settings
from homeserver.config.signing_key import load_signing_key, load_signing_keys


@pytest.fixture
def key_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key of a server in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    main(["init", "example.org"])
    return load_settings(Path("homeserver.yaml")).signing_key_path


def rotate(capsys: pytest.CaptureFixture[str]) -> dict:
    """Rotate the key; the printed part of the configuration."""
    capsys.readouterr()
    assert main(["rotate-key"]) == 0
    printed = capsys.readouterr().out
    return yaml.safe_load(printed[printed.index("federation:") :])


def test_the_old_key_is_kept_and_printed(
    key_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other servers can still verify its signatures."""
    old = load_signing_key(key_path)

    [entry] = rotate(capsys)["federation"]["old_verify_keys"]

    [new] = load_signing_keys(key_path)
    assert new.key_id != old.key_id
    assert (entry["key_id"], entry["key"]) == (old.key_id, old.verify_key)
    assert load_signing_key(key_path.with_name(f"{key_path.name}.{old.version}")).seed == old.seed
    assert key_path.stat().st_mode & 0o777 == 0o600


def test_printed_settings_can_be_configured(
    key_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a second rotation both old keys are printed."""
    config = Path("homeserver.yaml")
    first = load_signing_key(key_path)
    config.write_text(yaml.safe_dump({"server_name": "example.org", **rotate(capsys)}))
    second = load_signing_key(key_path)

    entries = rotate(capsys)["federation"]["old_verify_keys"]

    assert [entry["key_id"] for entry in entries] == [second.key_id, first.key_id]


def test_without_a_key_there_is_nothing_to_rotate(
    key_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong path must not look like a rotation."""
    key_path.unlink()

    assert main(["rotate-key"]) == 1
    assert "cannot read the signing key" in capsys.readouterr().err
