"""The file with the server's signing key: created once, readable by its owner alone.

The key proves to other servers that events come from this one. An attacker who has it can send
events as any local user, and without it federated rooms are lost; so the file is never overwritten,
and belongs in every backup. A rotation renames the old file.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

import os
import secrets
from pathlib import Path

from homeserver.config.errors import ConfigError
from homeserver.protocol.signing.signatures import (
    InvalidSigningKey,
    SigningKey,
    format_signing_keys,
    parse_signing_keys,
)


def load_signing_key(path: Path) -> SigningKey:
    """The key to sign with: the first of the file. Raises `ConfigError`."""
    return load_signing_keys(path)[0]


def load_signing_keys(path: Path) -> list[SigningKey]:
    """All keys of the file. Raises `ConfigError`, which says what to do."""
    try:
        keys = parse_signing_keys(path.read_text(encoding="ascii"))
    except OSError as error:
        raise ConfigError(f"cannot read the signing key {path}: {error.strerror}") from None
    except (InvalidSigningKey, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not a signing key ({error}); restore it from a backup"
        ) from None
    if not keys:
        raise ConfigError(f"{path} holds no signing key; restore it from a backup")
    return keys


def load_or_create_signing_key(path: Path) -> SigningKey:
    """The key in the file at `path`, which is created if missing. Raises `ConfigError`."""
    try:
        is_there = path.exists()
    except OSError as error:
        raise ConfigError(f"cannot read the signing key {path}: {error.strerror}") from None
    if not is_there:
        _create(path)
    return load_signing_key(path)


def rotate_signing_key(path: Path) -> tuple[list[SigningKey], SigningKey, Path]:
    """Replace the keys in the file: returns the old ones, the new one, and the old file's new path.

    Raises `ConfigError`.
    """
    old = load_signing_keys(path)
    kept = path.with_name(f"{path.name}.{old[0].version}")
    key = _new_key({each.version for each in old})
    try:
        draft = _write_draft(path, key)
        try:
            kept.hardlink_to(path)
        except OSError:
            draft.unlink()
            raise
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot replace the signing key {path}: {error.strerror}") from None
    return old, key, kept


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _write_draft(path, _new_key(set()))
        try:
            # Unlike a rename, a link fails if another process was faster.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write the signing key {path}: {error.strerror}") from None


def _new_key(taken: set[str]) -> SigningKey:
    """A key with a version that is not one of `taken`."""
    while (version := f"a_{secrets.token_hex(2)}") in taken:
        pass
    return SigningKey.from_seed(version, secrets.token_bytes(32))


def _write_draft(path: Path, key: SigningKey) -> Path:
    """Write a key to a file beside `path`, safe on disk, and readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(format_signing_keys([key]))
        file.flush()
        os.fsync(descriptor)
    return draft
