"""A pusher: where notifications of a user are sent, and how far they were sent.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
"""

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import msgspec

from homeserver.protocol.proposals.unstable_names import PUSHER_PREFIX
from homeserver.push.email.digest_state import (
    NO_MAILS,
    DigestState,
    decode_state,
    encode_state,
)
from homeserver.storage.database.batch import Row
from homeserver.storage.push.pushers import SET_DIGEST_PROGRESS, SET_PUSHER_PROGRESS, PusherRow

HTTP = "http"
EMAIL = "email"
EVENT_ID_ONLY = "event_id_only"


class PushersChanged(msgspec.Struct, frozen=True):
    """The pushers of these users were set, or deleted."""

    position: int
    user_ids: tuple[str, ...]


class PushProgressStored(msgspec.Struct, frozen=True):
    """How far pushers have sent was stored. No log subscriber uses it."""

    position: int


class PusherProgress(msgspec.Struct):
    """How far a pusher has sent; it changes with each push, and its row follows.

    Everything up to `sent_upto` was sent, or need not be. `behind_since` is the position of the
    first event that is not sent and not in memory either, since the gateway does not answer.
    `badge` is the count of unread messages that was sent last.

    For a pusher by e-mail, `behind_since` is the first event that waits to be mailed.
    """

    sent_upto: int
    badge: int | None = None
    behind_since: int | None = None
    failing_since_ms: int | None = None
    digest: DigestState = NO_MAILS

    def digest_row(self, pusher: int) -> Row:
        """The row of the progress of a pusher by e-mail."""
        return SET_DIGEST_PROGRESS.row(
            pusher,
            self.sent_upto,
            self.behind_since,
            self.failing_since_ms,
            encode_state(self.digest),
        )

    def row(self, pusher: int) -> Row:
        """The row of a pusher's progress."""
        return SET_PUSHER_PROGRESS.row(
            pusher, self.sent_upto, self.badge, self.behind_since, self.failing_since_ms
        )


class Pusher:
    """A pusher as it is stored, with its progress."""

    def __init__(self, row: PusherRow, progress: PusherProgress | None = None) -> None:
        self.row = row
        self.progress = progress or PusherProgress(
            row.sent_upto,
            row.badge,
            row.behind_since,
            row.failing_since_ms,
            decode_state(row.digest),
        )

    @property
    def number(self) -> int:
        """Its numeric id, which stays when it is set again."""
        return self.row.pusher

    @property
    def is_notifying(self) -> bool:
        """Whether it is enabled, of a kind that events are given to, and not of a locked account.

        The sessions of a locked account see no messages, so its phones and mailbox do not, either.
        """
        row = self.row
        return row.enabled and row.kind in (HTTP, EMAIL) and not row.is_locked

    @property
    def is_pushing(self) -> bool:
        """Whether it notifies by requests to a gateway."""
        return self.row.kind == HTTP and self.is_notifying

    @property
    def is_mailing(self) -> bool:
        """Whether it notifies by mails."""
        return self.row.kind == EMAIL and self.is_notifying

    @cached_property
    def url(self) -> str:
        """The URL of the gateway."""
        return str(self.data.get("url", ""))

    @cached_property
    def gateway(self) -> str:
        """The name of the gateway: its scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.lower()}"

    @cached_property
    def is_event_id_only(self) -> bool:
        """Whether the gateway gets no more than the ids of events."""
        return self.data.get("format") == EVENT_ID_ONLY

    @cached_property
    def data(self) -> dict[str, Any]:
        """The data that the client gave."""
        return msgspec.json.decode(self.row.data, type=dict[str, Any])

    @cached_property
    def device_json(self) -> bytes:
        """The device of a notification as JSON, without the closing brace: tweaks may follow."""
        data = {key: value for key, value in self.data.items() if key != "url"}
        device = {
            "app_id": self.row.app_id,
            "pushkey": self.row.pushkey,
            "pushkey_ts": self.row.set_ms // 1000,
            "data": data,
        }
        return msgspec.json.encode(device)[:-1]

    def client_json(self) -> dict[str, Any]:
        """The pusher as clients see it.

        The last fields are those of MSC3881, by their stable and their unstable names.
        """
        row = self.row
        shown: dict[str, Any] = {
            "pushkey": row.pushkey,
            "kind": row.kind,
            "app_id": row.app_id,
            "app_display_name": row.app_display_name,
            "device_display_name": row.device_display_name,
            "lang": row.lang,
            "data": self.data,
        }
        if row.profile_tag:
            shown["profile_tag"] = row.profile_tag
        for prefix in ("", PUSHER_PREFIX):
            shown[f"{prefix}enabled"] = row.enabled
            if row.device_id is not None:
                shown[f"{prefix}device_id"] = row.device_id
        return shown
