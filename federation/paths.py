"""The paths of the Server-Server API, which this server serves and asks others for.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

from urllib.parse import quote

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"
KEYS = "/_matrix/key/v2"


def path_of(prefix: str, *segments: str) -> str:
    """A path below `prefix`, such as `V1`, of percent-encoded segments."""
    return "/".join((prefix, *(quote(segment, safe="") for segment in segments)))
