"""URIs that clients register, read strictly.

A browser and a library may read a sloppy URI in two ways, so it has only the characters that RFC
3986 allows, and a host of plain letters, digits, dots and hyphens.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-metadata
"""

import re
from urllib.parse import SplitResult, urlsplit

MAX_URI = 2_048  # characters

_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def split_uri(uri: str) -> SplitResult | None:
    """The parts of a URI, or `None` if it is too long or has other than the allowed characters."""
    if len(uri) > MAX_URI or not _CHARACTERS.fullmatch(uri):
        return None
    try:
        return urlsplit(uri)
    except ValueError:
        return None


def https_host(uri: str) -> str | None:
    """The host of an `https` URI in lower case; `None` for others, and for those with a user."""
    parts = split_uri(uri)
    if parts is None or parts.scheme != "https" or "@" in parts.netloc:
        return None
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or not _HOST.fullmatch(host) or ".." in host or port == 0:
        return None
    return host


def is_within(host: str, base: str) -> bool:
    """Whether a host is `base` or a subdomain of it.

    A name of one label, such as `localhost` or a top-level domain, has no subdomains here.
    """
    return host == base or (is_domain(base) and host.endswith("." + base))


def is_domain(host: str) -> bool:
    """Whether a host is a name of several labels, not an address."""
    return "." in host and not host.rpartition(".")[2].isdigit()
