"""Empty responses for endpoints of unsupported modules, which clients request by themselves.

The settings pages and start-up code of clients treat "no such endpoint" as a broken server, and
show an error or retry endlessly. A module that is added removes its endpoint from here.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
"""

from typing import Any

from homeserver.web.routes import Route

CLIENT = "/_matrix/client/v3"


class EmptyResponsesApi:
    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{CLIENT}/thirdparty/protocols", self.get_protocols),
        ]

    def get_protocols(self) -> dict[str, Any]:
        """The networks that application services bridge to."""
        return {}
