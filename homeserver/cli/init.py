"""`homeserver init`: a complete configuration file, and the signing key of a new server."""

import os
from pathlib import Path

from homeserver.cli.errors import CommandError
from homeserver.config.hints import DEFAULT_CONFIG, homeserver_command
from homeserver.config.loading import load_settings
from homeserver.config.reference import sample
from homeserver.config.signing_key import load_or_create_signing_key


def init(server_name: str, config: Path | None, *, replace: bool) -> int:
    """Write the configuration of the server `server_name`, and create its signing key.

    Raises `CommandError` if the file exists, unless it may be replaced. An existing signing key is
    never replaced.
    """
    path = config or DEFAULT_CONFIG
    try:
        text = sample(server_name=server_name)
    except ValueError as error:
        raise CommandError(str(error)) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It will hold passwords, so only its owner can read it, from the beginning.
        how = os.O_TRUNC if replace else os.O_EXCL
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, mode=0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        again = homeserver_command("init", "--force", server_name, config=path)
        raise CommandError(f"{path} exists; to replace it: {again}") from None
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None

    settings = load_settings(path)
    key = load_or_create_signing_key(settings.signing_key_path)
    print(f"Configuration: {path}")
    print(f"Signing key:   {settings.signing_key_path} ({key.key_id}); keep a copy of it")
    print(f"Next:          {homeserver_command('run', config=path)}")
    print(f"               {homeserver_command('user', 'add', '--admin', 'NAME', config=path)}")
    return 0
