"""The configuration of a command."""

from pathlib import Path

from homeserver.cli.errors import CommandError
from homeserver.config.hints import DEFAULT_CONFIG, homeserver_command
from homeserver.config.loading import load_settings
from homeserver.config.settings import Settings


def find_config(given: Path | None) -> Path | None:
    """The file given with `--config`, else `homeserver.yaml` in this directory if it exists."""
    if given is not None:
        return given
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def load(given: Path | None) -> Settings:
    """The settings of a command that starts a server, even a new one. Raises `ConfigError`."""
    return load_settings(find_config(given))


def load_installed(given: Path | None) -> Settings:
    """The settings of a command that needs an existing server.

    Raises `ConfigError`, and `CommandError` if there is neither a configuration nor data: in a
    wrong directory, a command must not create a second server and seem to succeed.
    """
    settings = load(given)
    if find_config(given) is None and not _has_data(settings):
        raise CommandError(
            f"There is no server in {Path.cwd()}: no {DEFAULT_CONFIG} and no data. Change to the"
            " directory of the server, or name its configuration with --config FILE. To make a new"
            f" server here: {homeserver_command('run')}"
        )
    return settings


def _has_data(settings: Settings) -> bool:
    try:
        return settings.signing_key_path.exists() or settings.postgres_dir.exists()
    except PermissionError:
        return True  # it exists, but belongs to another user
