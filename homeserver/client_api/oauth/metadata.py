"""The discovery of the OAuth 2.0 API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-metadata-discovery
"""

from homeserver.protocol.oauth.server_metadata import server_metadata
from homeserver.protocol.proposals.unstable_names import AUTH_METADATA
from homeserver.web.routes import Auth, Response, Route

PATH = "/_matrix/client/v1/auth_metadata"


class AuthMetadataApi:
    """`with_registration` says that users may register."""

    def __init__(self, public_baseurl: str, *, with_registration: bool) -> None:
        self._response = Response(
            body=server_metadata(public_baseurl, with_registration=with_registration),
            headers={"Cache-Control": "public, max-age=3600"},
        )

    def routes(self) -> list[Route]:
        return [
            Route("GET", path, self.get_auth_metadata, auth=Auth.NONE, limit="lookup")
            for path in (PATH, AUTH_METADATA)
        ]

    def get_auth_metadata(self) -> Response:
        """The metadata of the authorisation server."""
        return self._response
