"""Credentials for a TURN server, which relays the media of calls.

Nobody registers users at the TURN server. It shares a secret with this server, and lets in any user
name that carries its own expiry and is signed with the secret: "TURN REST API" credentials, as
coturn's `use-auth-secret` checks them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00
"""

import hmac
from base64 import b64encode
from pathlib import Path
from typing import Any

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.errors import ConfigError
from homeserver.config.sections.calls import TurnSettings


class TurnCredentials:
    """Issues credentials to users. Raises `ConfigError` if the file of the secret is unreadable."""

    def __init__(self, settings: TurnSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._secret = _secret_of(settings)

    def issue(self, user_id: str) -> dict[str, Any]:
        """The addresses and a user's credentials, or nothing if there is no TURN server."""
        settings = self._settings
        if not settings.uris:
            return {}
        username, password = settings.username, settings.password
        if self._secret is not None:
            expiry = now_ms(self._clock) // 1000 + settings.lifetime
            username = f"{expiry}:{user_id}"
            signature = hmac.digest(self._secret.encode(), username.encode(), "sha1")
            password = b64encode(signature).decode()
        return {
            "username": username,
            "password": password,
            "ttl": settings.lifetime,
            "uris": list(settings.uris),
        }


def read_secret(path: Path) -> str:
    """The secret in a file, without white space around it. Raises `ConfigError`."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"cannot read turn.shared_secret_file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"turn.shared_secret_file {path} is not text") from None
    if not secret:
        raise ConfigError(f"turn.shared_secret_file {path} is empty")
    return secret


def _secret_of(settings: TurnSettings) -> str | None:
    if settings.shared_secret_file is not None:
        return read_secret(settings.shared_secret_file)
    return settings.shared_secret
