"""The URLs of which this server makes previews, by the settings of its operator.

This is about names and ports. That a name leads to no private address is checked when the
connection is made (`outbound/networks.py`).
"""

import re
from urllib.parse import urlsplit

from homeserver.config.sections.url_previews import UrlPreviewSettings
from homeserver.outbound.http_client import OutboundError, normal_url
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.glob import GlobSet

MAX_URL = 4_096  # characters
MAX_HOST = 255
# Of other characters two readers of a URL may make different hosts.
HOST = re.compile(rf"[a-z0-9_.:-]{{1,{MAX_HOST}}}")
DEFAULT_PORTS = {"http": 80, "https": 443}


class PermittedUrls:
    """The hosts and ports that are asked."""

    def __init__(self, settings: UrlPreviewSettings) -> None:
        self._denied = GlobSet([host.lower() for host in settings.denied_hosts], MAX_HOST)
        self._ports = settings.ports

    def parse(self, url: str) -> str:
        """The URL in the form in which it is requested. Raises `InvalidParam` or `Forbidden`."""
        if len(url) > MAX_URL:
            raise InvalidParam("The URL is too long")
        try:
            normal = normal_url(url)
        except OutboundError as error:
            raise InvalidParam("The URL is not that of a public web page") from error
        if not self._permits(normal):
            raise Forbidden("This server shows no previews of this URL")
        return normal

    def check(self, url: str) -> None:
        """Raise `OutboundError` if a URL, which `normal_url` made, may not be requested."""
        if len(url) > MAX_URL or not self._permits(url):
            raise OutboundError("the URL is not permitted")

    def _permits(self, url: str) -> bool:
        parts, host = urlsplit(url), host_of(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        is_open = not self._ports or port in self._ports
        return is_open and HOST.fullmatch(host) is not None and not self._denied.matches(host)


def host_of(url: str) -> str:
    """The host of a URL, without a dot at its end, which changes nothing for a name server."""
    return (urlsplit(url).hostname or "").rstrip(".")
