"""The errors of requests to other servers, as the client sees them whose request needed these.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
"""

from federation.transport.errors import FederationDenied, FederationError, RemoteError
from homeserver.protocol.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    MatrixError,
    NotFound,
    RefusedByRemote,
    RemoteServerFailed,
)

# These codes make clients log out, or blame their own request where this server has made one that
# the other does not accept.
_NOT_FORWARDED = frozenset(
    {
        "",
        "M_UNKNOWN_TOKEN",
        "M_MISSING_TOKEN",
        "M_USER_DEACTIVATED",
        "M_USER_LOCKED",
        "M_INVALID_PARAM",
        "M_MISSING_PARAM",
        "M_BAD_JSON",
        "M_NOT_JSON",
        "M_UNRECOGNIZED",
    }
)


def for_users(error: FederationError) -> MatrixError:
    """The error for a client that stands for a failed federation request."""
    if isinstance(error, FederationDenied):
        return Forbidden(f"This server may not talk with {error.server}")
    if not isinstance(error, RemoteError):
        return RemoteServerFailed(f"{error.server} is unavailable at the moment")
    known: dict[str, type[MatrixError]] = {
        "M_FORBIDDEN": Forbidden,
        "M_NOT_FOUND": NotFound,
    }
    if error.errcode == "M_INCOMPATIBLE_ROOM_VERSION":
        version = str(error.body.get("room_version", ""))
        return IncompatibleRoomVersion(error.error, room_version=version)
    kind = known.get(error.errcode)
    if kind is not None:
        return kind(error.error or "The other server refused")
    if error.status in (400, 403, 404) and error.errcode not in _NOT_FORWARDED:
        return RefusedByRemote(error.status, error.errcode, error.error[:500])
    return RemoteServerFailed(f"{error.server} refused: {error.error}"[:500])
