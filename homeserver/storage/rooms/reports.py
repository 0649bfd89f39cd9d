"""Reports that users sent to the administrators.

Owns the table `reports` (migrations/0007_reports.sql).
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class Report(msgspec.Struct, frozen=True):
    """A report of an event (it has all three ids), of a room, or of a user.

    `id` is the number of its row, 0 for one that is not stored yet.
    """

    reporter: str
    reported_ms: int
    room_id: str | None = None
    event_id: str | None = None
    user_id: str | None = None
    reason: str = ""
    id: int = 0


async def insert_report(db: Connection, report: Report) -> None:
    """Add a report."""
    await db.execute(
        """
        INSERT INTO reports (reported_ms, reporter, room_id, event_id, user_id, reason)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        (
            report.reported_ms,
            report.reporter,
            report.room_id,
            report.event_id,
            report.user_id,
            report.reason,
        ),
    )


async def reports_after(db: Connection, after: int = 0, limit: int = 1000) -> list[Report]:
    """A page of reports, oldest first: those with numbers above `after`."""
    async with db.cursor(row_factory=class_row(Report)) as cursor:
        await cursor.execute(
            """
            SELECT id, reported_ms, reporter, room_id, event_id, user_id, reason
              FROM reports
             WHERE id > %s
             ORDER BY id
             LIMIT %s
            """,
            (after, limit),
        )
        return await cursor.fetchall()
