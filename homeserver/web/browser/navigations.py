"""Responses for scripts only, which a browser must not open as a page.

Strangers could write what users then see under the name of this server. Browsers say in
`Sec-Fetch-Mode` and `Sec-Fetch-Dest` what they want a response for; other programs do not send
these headers.

Source: https://www.w3.org/TR/fetch-metadata/
"""

from homeserver.protocol.errors import Forbidden
from homeserver.web.request import Request

NAVIGATIONS = ("navigate", "nested-navigate")


def refuse_navigation(request: Request) -> None:
    """Raise `Forbidden` if a browser wants to show the response, alone or as part of a page."""
    is_navigation = request.header(b"Sec-Fetch-Mode") in NAVIGATIONS
    if is_navigation or request.header(b"Sec-Fetch-Dest") not in (None, "empty"):
        raise Forbidden("This is not a page; only clients can fetch it")
