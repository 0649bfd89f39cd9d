"""The signing key file: created once, private, never overwritten."""

import stat
from pathlib import Path

import pytest

from homeserver.config.errors import ConfigError
from homeserver.config.signing_key import load_or_create_signing_key, load_signing_key


def test_key_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    """Other servers know this one by its key, so it must survive a restart."""
    path = tmp_path / "data" / "signing.key"

    first = load_or_create_signing_key(path)
    second = load_or_create_signing_key(path)

    assert (first.key_id, first.seed) == (second.key_id, second.seed)
    assert [entry.name for entry in path.parent.iterdir()] == ["signing.key"]


def test_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """An attacker with the key could send events as any local user."""
    path = tmp_path / "signing.key"

    load_or_create_signing_key(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "not a key", "ed25519 a_1 tooshort", "\u00e9"])
def test_broken_key_is_reported_and_not_replaced(tmp_path: Path, content: str) -> None:
    """A damaged key may be repaired; with a new one others would not trust this server."""
    path = tmp_path / "signing.key"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ConfigError, match="restore it from a backup"):
        load_or_create_signing_key(path)

    assert path.read_text(encoding="utf-8") == content


def test_missing_key_is_reported(tmp_path: Path) -> None:
    """A wrong signing_key_path ends in a sentence, not in a traceback."""
    with pytest.raises(ConfigError, match="No such file"):
        load_signing_key(tmp_path / "signing.key")
