"""Redirect URIs: which ones a client may register, and which registered one a request names.

Spec: https://spec.matrix.org/v1.19/client-server-api/#redirect-uri-validation
"""

import re
from collections.abc import Iterable

from homeserver.protocol.oauth.errors import INVALID_REDIRECT_URI, OAuthError
from homeserver.protocol.oauth.uris import https_host, is_domain, is_within, split_uri

NATIVE = "native"
WEB = "web"

# On the loopback interface the port is that of the moment, so it is no part of the registration.
_LOOPBACK = re.compile(
    r"(?P<host>http://(?:localhost|127\.0\.0\.1|\[::1\]))(?P<port>:[1-9][0-9]{0,4})?"
    r"(?P<rest>(?:[/?].*)?)"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


def check_redirect_uri(uri: str, client_host: str, application_type: str) -> None:
    """Raise `OAuthError` unless a client of this type and host may register a redirect URI."""
    if split_uri(uri) is None:
        raise _invalid("a redirect URI is not a valid URI")
    if "#" in uri:
        raise _invalid("a redirect URI has no fragment")
    scheme = uri.partition(":")[0]
    if scheme == "https":
        _check_https(uri, client_host)
    elif application_type != NATIVE:
        raise _invalid("the redirect URIs of a web client are https URIs")
    elif scheme == "http":
        _check_loopback(uri)
    else:
        _check_private(uri, scheme, client_host)


def find_redirect_uri(requested: str, registered: Iterable[str]) -> str | None:
    """The requested URI, if it is a registered one: the same, or on any port for loopback."""
    if requested in registered:
        return requested
    match = _LOOPBACK.fullmatch(requested)
    if match is None or match["port"] is None or int(match["port"][1:]) > 65_535:
        return None
    if split_uri(requested) is None or "#" in requested:
        return None
    return requested if match["host"] + match["rest"] in registered else None


def origin_of(redirect_uri: str) -> str:
    """The source expression, in a content security policy, that a redirect to the URI needs."""
    parts = split_uri(redirect_uri)
    if parts is None:
        return "'none'"
    # The syntax has no IPv6 addresses.
    if parts.scheme not in ("http", "https") or "[" in parts.netloc:
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(redirect_uri: str) -> bool:
    """Whether the URI is that of a program on the user's own machine."""
    return _LOOPBACK.fullmatch(redirect_uri) is not None


def _check_https(uri: str, client_host: str) -> None:
    host = https_host(uri)
    if host is None:
        raise _invalid("a redirect URI has no valid host, or it has a user")
    if not is_within(host, client_host):
        raise _invalid("the host of a redirect URI is that of the client_uri, or a subdomain")


def _check_loopback(uri: str) -> None:
    match = _LOOPBACK.fullmatch(uri)
    if match is None:
        raise _invalid("an http redirect URI has the host localhost, 127.0.0.1 or [::1]")
    if match["port"] is not None:
        raise _invalid("a redirect URI on the loopback interface is registered without a port")


def _check_private(uri: str, scheme: str, client_host: str) -> None:
    if not _SCHEME.fullmatch(scheme) or ":" not in uri:
        raise _invalid("a redirect URI has no scheme in lower case")
    prefix = ".".join(reversed(client_host.split(".")))
    is_own = scheme == prefix or scheme.startswith(prefix + ".")
    if not is_domain(client_host) or not is_own:
        raise _invalid("a private scheme begins with the host of the client_uri in reverse")
    if uri[len(scheme) + 1 :].startswith("//"):
        raise _invalid("a redirect URI of a private scheme has no host")


def _invalid(description: str) -> OAuthError:
    return OAuthError(INVALID_REDIRECT_URI, description)
