"""A check of the pages of accounts: whether a browser gets them, and their cookie, by the proxy.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

import http.client
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from homeserver.accounts.browser_sessions.anonymous_forms import FORM_COOKIE
from homeserver.accounts.browser_sessions.browser_sessions import SIGN_IN
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.config.settings import Settings

TIMEOUT = 5.0  # seconds
MAX_RESPONSE_BYTES = 65_536
LOCAL = ("localhost", "127.0.0.1", "::1")


def check_pages(settings: Settings) -> Iterator[Finding]:
    """Check the page for signing in at the address that browsers use, if it is enabled."""
    if not settings.oauth.enabled or settings.public_baseurl is None:
        return
    url = settings.public_baseurl.rstrip("/") + SIGN_IN
    base = urlsplit(settings.public_baseurl)
    if base.scheme == "http" and base.hostname not in LOCAL:
        fix = "serve it by HTTPS, and change public_baseurl"
        yield problem("pages", f"{url}: passwords are sent without encryption", fix)
    try:
        status, cookies, text = _get(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The server may be stopped, or this machine may not reach its own public address.
        fix = "start the server, or open the page in a browser"
        yield warning("pages", f"{url} cannot be fetched from here: {error}", fix)
        return
    name = f'<meta name="matrix-server" content="{settings.server_name}">'
    if status != http.client.OK or name not in text:
        fix = "make the reverse proxy forward /_matrix/ to this server, with the path as it is"
        yield problem("pages", f"{url} is not the page of this server (status {status})", fix)
    elif not any(f"{FORM_COOKIE}=" in cookie for cookie in cookies):
        fix = "make the reverse proxy pass Set-Cookie on, and cache nothing below /_matrix/"
        yield problem("pages", f"{url} has lost its cookie on the way", fix)
    else:
        yield ok("pages", f"{url} can be reached")


def _get(url: str) -> tuple[int, list[str], str]:
    """The status, the cookies and the text of a page. Raises `OSError` and the like."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(
            host, parts.port or 443, timeout=TIMEOUT, context=ssl.create_default_context()
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port or 80, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        cookies = response.headers.get_all("Set-Cookie") or []
        text = response.read(MAX_RESPONSE_BYTES).decode("utf-8", "replace")
        return response.status, cookies, text
    finally:
        connection.close()
