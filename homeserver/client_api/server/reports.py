"""Reporting users, rooms and events over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.moderation.reports import Reports
from homeserver.web.routes import Route

CLIENT = "/_matrix/client/v3"


class ReportReason(msgspec.Struct):
    """The reason for a report, which may be empty."""

    reason: str


class EventReason(msgspec.Struct):
    """The reason for reporting an event, which is optional."""

    reason: str | None = None


class ReportsApi:
    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def routes(self) -> list[Route]:
        room = f"{CLIENT}/rooms/{{room_id}}/report"
        user = f"{CLIENT}/users/{{user_id}}/report"
        return [
            Route("POST", room, self.report_room, limit="report"),
            Route("POST", f"{room}/{{event_id}}", self.report_event, limit="report"),
            Route("POST", user, self.report_user, limit="report"),
        ]

    async def report_room(self, caller: Requester, room_id: str, body: ReportReason) -> None:
        """Report a room."""
        await self._reports.report_room(caller, room_id, body.reason)

    async def report_event(
        self, caller: Requester, room_id: str, event_id: str, body: EventReason
    ) -> None:
        """Report an event in a room that the caller is in."""
        await self._reports.report_event(caller, room_id, event_id, body.reason or "")

    async def report_user(self, caller: Requester, user_id: str, body: ReportReason) -> None:
        """Report a user."""
        await self._reports.report_user(caller, user_id, body.reason)
