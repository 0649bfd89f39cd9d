"""The versions of the specification, and the proposals, that the server implements.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-versions
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.protocol.errors import MissingToken
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

# All versions since the last two of the old numbers are compatible with one another.
VERSIONS = ["r0.5.0", "r0.6.0", "r0.6.1", *(f"v1.{minor}" for minor in range(1, 20))]
# Specified features that clients still look up under their unstable names.
SPECIFIED_FEATURES = {
    "org.matrix.msc2285.stable": True,  # private receipts
    "uk.tcpip.msc4133": True,  # profile fields
    "uk.tcpip.msc4133.stable": True,
}
# Proposals that the modules of this package implement.
PROPOSED_FEATURES = {
    "com.beeper.msc4169": True,  # redactions are sent as events in all room versions
}


# A bridge that sees this imports history (docs/history-import.md), and gives up where it may not.
IMPORT_FEATURES = {"com.beeper.batch_sending": True}


class VersionsApi:
    """`unstable_features` names the proposals that other modules implement."""

    def __init__(self, unstable_features: Mapping[str, bool], appservices: Appservices) -> None:
        self._appservices = appservices
        self._response = _versions(unstable_features)
        self._response_to_importers = _versions({**unstable_features, **IMPORT_FEATURES})

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


def _versions(unstable_features: Mapping[str, bool]) -> msgspec.Raw:
    features = {**SPECIFIED_FEATURES, **PROPOSED_FEATURES, **unstable_features}
    return msgspec.Raw(msgspec.json.encode({"versions": VERSIONS, "unstable_features": features}))
