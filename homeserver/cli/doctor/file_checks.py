"""Checks of the files of an installation: configuration, signing key, data directory."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.config.errors import ConfigError
from homeserver.config.hints import homeserver_command, shell_command
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_signing_key

LITTLE_SPACE = 1_000_000_000  # bytes


def check_config_file(config: Path | None, settings: Settings) -> Iterator[Finding]:
    """Warn if other users of the machine can read secrets in the configuration."""
    has_secrets = (
        settings.database.dsn or settings.registration.shared_secret or settings.email.smtp_password
    )
    if config is not None and has_secrets and config.stat().st_mode & stat.S_IROTH:
        yield warning(
            "configuration",
            f"every user of this machine can read the secrets in {config}",
            shell_command("chmod", "o-r", config),
        )


def check_signing_key(config: Path | None, settings: Settings) -> Finding:
    """Check that the key exists, is valid, and is private."""
    path = settings.signing_key_path
    if not _may_exist(path):
        return warning(
            "signing key",
            f"{path} does not exist",
            f"`{homeserver_command('run', config=config)}` creates it; but if the server has run"
            " before, restore the old one",
        )
    try:
        key = load_signing_key(path)
    except ConfigError as error:
        return problem("signing key", str(error), "restore it, or let the server's user read it")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(
            "signing key", f"other users can read {path}", shell_command("chmod", "600", path)
        )
    return ok("signing key", f"{key.key_id} in {path}")


def check_data_dir(settings: Settings) -> Finding:
    """Check that the server can write there, and has space."""
    path = settings.data_dir
    existing = next(folder for folder in (path, *path.parents) if _may_exist(folder))
    if not os.access(existing, os.W_OK | os.X_OK):
        return problem(
            "data folder", f"{existing} cannot be written to", "correct its owner, or set data_dir"
        )
    free = shutil.disk_usage(existing).free
    if free < LITTLE_SPACE:
        return warning(
            "data folder", f"only {free // 1_000_000} MB are free at {existing}", "make space"
        )
    return ok("data folder", f"{path}, {free // 1_000_000_000} GB free")


def _may_exist(path: Path) -> bool:
    """Whether a path exists, or is in a directory that this user may not read."""
    try:
        return path.exists()
    except PermissionError:
        return True
