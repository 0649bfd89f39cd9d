"""The versions of the specification, and the proposals, that the server implements.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-versions
"""

from collections.abc import Mapping
from typing import Any

import msgspec

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


class VersionsApi:
    """`unstable_features` names the proposals that other modules implement."""

    def __init__(self, unstable_features: Mapping[str, bool]) -> None:
        versions = {
            "versions": VERSIONS,
            "unstable_features": {
                **SPECIFIED_FEATURES,
                **PROPOSED_FEATURES,
                **unstable_features,
            },
        }
        self._response = msgspec.Raw(msgspec.json.encode(versions))

    def routes(self) -> list[Route]:
        return [Route("GET", "/_matrix/client/versions", self.get_versions, auth=Auth.NONE)]

    def get_versions(self) -> Any:
        """The versions of the specification that the server implements."""
        return self._response
