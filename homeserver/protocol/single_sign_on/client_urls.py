"""The `redirectUrl` of a client: checks, and the login token that is added to it.

Its owner gets a token for the account. So it may name a web page or an application, but run nothing
in the origin of this server, and users are asked before they go to a client that is not trusted.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-login-via-sso
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus, urlsplit

MAX_LENGTH = 1_400  # characters: it is stored in a cookie
LOGIN_TOKEN = "loginToken"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[!-\[\]-~]+")  # no space, no backslash
# Browsers run them, or show local files, in place of opening a client.
_REFUSED = frozenset(
    {"javascript", "data", "vbscript", "blob", "file", "filesystem", "about", "view-source"}
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class InvalidClientUrl(ValueError):
    """Users cannot be redirected to it."""


def check_client_url(url: str) -> None:
    """Raise `InvalidClientUrl` unless users may be sent to this address."""
    match = _URL.fullmatch(url)
    if match is None or len(url) > MAX_LENGTH:
        raise InvalidClientUrl("redirectUrl is not an absolute URL, or too long")
    scheme = match[1].lower()
    if scheme in _REFUSED:
        raise InvalidClientUrl(f"redirectUrl may not be a {scheme}: URL")
    if scheme in _DEFAULT_PORTS:
        try:
            parts = urlsplit(url)
            has_host = bool(parts.hostname) and parts.port != 0
        except ValueError:
            has_host = False
        # Browsers read `https:host` and `https:///host` as `https://host`.
        if not has_host or "@" in parts.netloc:
            raise InvalidClientUrl("redirectUrl names no host")


def with_login_token(url: str, token: str) -> str:
    """The address with the token as its only `loginToken` parameter; all else is unchanged."""
    rest, mark, fragment = url.partition("#")
    base, _, query = rest.partition("?")
    kept = [
        pair
        for pair in query.split("&")
        if pair and unquote_plus(pair.partition("=")[0]) != LOGIN_TOKEN
    ]
    return f"{base}?{'&'.join([*kept, f'{LOGIN_TOKEN}={token}'])}{mark}{fragment}"


def is_trusted(url: str, trusted: Iterable[str]) -> bool:
    """Whether the address is one of the trusted ones, or below it."""
    return any(_is_below(url, each) for each in trusted)


def client_of(url: str) -> str:
    """The client, for users to recognise: its origin, or the scheme of an application."""
    parts = urlsplit(url)
    if parts.scheme in _DEFAULT_PORTS:
        return f"{parts.scheme}://{parts.netloc}"
    return f"{parts.scheme}:"


def _is_below(url: str, trusted: str) -> bool:
    try:
        if _origin(url) != _origin(trusted):
            return False
    except ValueError:
        return False
    path, prefix = urlsplit(url).path, urlsplit(trusted).path
    if {".", ".."} & set(unquote_plus(path).replace("\\", "/").split("/")):
        return False  # browsers resolve it to another path
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").rstrip("."), port
