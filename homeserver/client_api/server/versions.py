"""The versions of the specification, and the proposals, that the server implements.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-versions
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.protocol.errors import MissingToken
from homeserver.protocol.proposals.unstable_names import IMPORT, flags_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

# All versions since the last two of the old numbers are compatible with one another.
VERSIONS = ["r0.5.0", "r0.6.0", "r0.6.1", *(f"v1.{minor}" for minor in range(1, 20))]


class VersionsApi:
    """`conditional` are the flags of `PROPOSALS` that depend on the settings."""

    def __init__(self, conditional: Mapping[str, bool], appservices: Appservices) -> None:
        self._appservices = appservices
        self._response = _versions(conditional)
        # A bridge that sees this imports history, and gives up where it may not.
        self._response_to_importers = _versions({**conditional, IMPORT: True})

    def routes(self) -> list[Route]:
        return [Route("GET", "/_matrix/client/versions", self.get_versions, auth=Auth.NONE)]

    def get_versions(self, request: Request) -> Any:
        """The versions of the specification that the server implements."""
        return self._response_to_importers if self._may_import(request) else self._response

    def _may_import(self, request: Request) -> bool:
        """Whether the client is an application service that may import history."""
        if not self._appservices.all:
            return False
        try:
            token = request.token()
        except MissingToken:
            return False
        service = None if token is None else self._appservices.by_token(token)
        return service is not None and service.may_import_history


def _versions(conditional: Mapping[str, bool]) -> msgspec.Raw:
    features = {**flags_of(), **conditional}
    return msgspec.Raw(msgspec.json.encode({"versions": VERSIONS, "unstable_features": features}))
