"""The TURN server, over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
"""

from typing import Any

from homeserver.accounts.credentials.turn_credentials import TurnCredentials
from homeserver.accounts.sessions.requester import Requester
from homeserver.web.routes import Auth, Route


class TurnApi:
    def __init__(self, credentials: TurnCredentials, *, allow_guests: bool) -> None:
        self._credentials = credentials
        self._auth = Auth.GUEST if allow_guests else Auth.USER

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/voip/turnServer"
        return [Route("GET", path, self.get_turn_server, auth=self._auth, limit="lookup")]

    def get_turn_server(self, caller: Requester) -> dict[str, Any]:
        """The TURN server, with credentials of the caller; `{}` if there is none."""
        return self._credentials.issue(caller.user_id)
