"""Cross-origin resource sharing: web clients of any origin may use the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
"""

from homeserver.web.routes import Response

CORS_HEADERS = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: X-Requested-With, Content-Type, Authorization\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)
"""Header lines of every response."""

_PREFLIGHT = Response(204, b"", {"Access-Control-Max-Age": "86400"})


def preflight() -> Response:
    """The response to OPTIONS, for all paths: browsers may cache it for a day."""
    return _PREFLIGHT
