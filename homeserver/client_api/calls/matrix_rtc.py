"""The transports of MatrixRTC, over the API: where the media of calls with many users goes.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4143
"""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.proposals.unstable_names import RTC_TRANSPORTS
from homeserver.web.routes import Auth, Route


class MatrixRtcApi:
    def __init__(self, transports: Sequence[Mapping[str, Any]]) -> None:
        self._response = {"rtc_transports": transports}

    def routes(self) -> list[Route]:
        return [
            Route("GET", path, self.get_transports, Auth.GUEST, limit="lookup")
            for path in ("/_matrix/client/v1/rtc/transports", RTC_TRANSPORTS)
        ]

    def get_transports(self, caller: Requester) -> dict[str, Any]:
        """The transports that this server offers."""
        return self._response
