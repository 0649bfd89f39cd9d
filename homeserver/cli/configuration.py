"""Which configuration a command works with."""

from pathlib import Path

from homeserver.config.loading import load_settings
from homeserver.config.settings import Settings

DEFAULT = Path("homeserver.yaml")


def find_config(given: Path | None) -> Path | None:
    """The file given with `--config`, else `homeserver.yaml` here if there is one."""
    if given is not None:
        return given
    return DEFAULT if DEFAULT.exists() else None


def load(given: Path | None) -> Settings:
    """The settings of a command. Raises `ConfigError`."""
    return load_settings(find_config(given))
