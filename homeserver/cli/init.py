"""`homeserver init`: a complete configuration file, and the signing key of a new server."""

import os
from pathlib import Path
from typing import Any

from homeserver.cli.errors import CommandError
from homeserver.config.hints import DEFAULT_CONFIG, homeserver_command
from homeserver.config.loading import load_settings
from homeserver.config.reference import sample
from homeserver.config.sections.acme import AcmeSettings, problem_of_name
from homeserver.config.sections.federation import FederationSettings
from homeserver.config.sections.listeners import Listener, Tls
from homeserver.config.signing_key import load_or_create_signing_key

ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  # the operator asks for a public server
NEEDS_PORTS = """\
The server uses the ports 80 and 443, which must be reachable at {name} from the internet, and
which need a permission: docs/systemd.md, docs/containers.md. It obtains its certificate when it
runs. By `acme.agree_to_terms` in the configuration you agree to the terms of service of Let's
Encrypt: https://letsencrypt.org/repository/
"""


def init(
    server_name: str, config: Path | None, *, replace: bool, acme_email: str | None = None
) -> int:
    """Write the configuration of the server `server_name`, and create its signing key.

    With `acme_email` the server obtains its certificate by itself. Raises `CommandError` if the
    file exists, unless it may be replaced. An existing signing key is never replaced.
    """
    path = config or DEFAULT_CONFIG
    try:
        chosen = {} if acme_email is None else _public_server(server_name, acme_email)
        text = sample(server_name=server_name, **chosen)
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
        words = [] if acme_email is None else ["--acme", acme_email]
        again = homeserver_command("init", "--force", *words, server_name, config=path)
        raise CommandError(f"{path} exists; to replace it: {again}") from None
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None

    settings = load_settings(path)
    key = load_or_create_signing_key(settings.signing_key_path)
    print(f"Configuration: {path}")
    print(f"Signing key:   {settings.signing_key_path} ({key.key_id}); keep a copy of it")
    print(f"Next:          {homeserver_command('run', config=path)}")
    print(f"               {homeserver_command('user', 'add', '--admin', 'NAME', config=path)}")
    if acme_email is not None:
        print("\n" + NEEDS_PORTS.format(name=server_name), end="")
    return 0


def _public_server(server_name: str, email: str) -> dict[str, Any]:
    """The settings of a server that clients and other servers reach by its name.

    Raises `ValueError` if there cannot be a certificate for the name.
    """
    if problem := problem_of_name(server_name):
        raise ValueError(f"{server_name!r} {problem}: no certificate can be obtained for it")
    return {
        "public_baseurl": f"https://{server_name.lower()}",
        "listeners": (
            Listener(
                port=443,
                bind=ALL_ADDRESSES,
                tls=Tls(acme=True),
                resources=("client", "federation"),
            ),
            Listener(port=80, bind=ALL_ADDRESSES, resources=("acme",)),
        ),
        "acme": AcmeSettings(agree_to_terms=True, email=email),
        "federation": FederationSettings(delegated_to=f"{server_name.lower()}:443"),
    }
