"""What a mail says of an event, in one line.

Names and messages are chosen by strangers: no line breaks, control characters or marks that change
the direction of text get into a mail, and everything is shortened.
"""

import unicodedata
from typing import Any

from homeserver.protocol.event_kinds import is_encrypted, is_member_event, is_message, is_state
from homeserver.protocol.event_types import (
    CALL_INVITE,
    POLL_START,
    REACTION,
    STICKER,
    TOMBSTONE,
    UNSTABLE_POLL_START,
)
from homeserver.protocol.events import Event

MAX_NAME = 80  # characters
MAX_TEXT = 300
ZERO_WIDTH_JOINER = "\u200d"  # in many emoji
SHOWN_CATEGORIES = ("L", "M", "N", "P", "S")

OF_MESSAGES = {
    "m.image": "sent an image",
    "m.file": "sent a file",
    "m.audio": "sent an audio file",
    "m.video": "sent a video",
    "m.location": "sent a location",
}
OF_EVENTS = {
    STICKER: "sent a sticker",
    CALL_INVITE: "is calling",
    POLL_START: "started a poll",
    UNSTABLE_POLL_START: "started a poll",
    REACTION: "reacted to a message",
}


def clean(text: str, length: int) -> str:
    """A text in one line without invisible characters, shortened to some characters."""
    # No more is looked at than may be shown, however long the text is.
    kept = [_shown(character) for character in text[: length * 4]]
    line = " ".join("".join(kept).split())
    if len(line) <= length and len(text) <= length * 4:
        return line
    return line[:length].rstrip() + "…"


def said_by(event: Event, user_id: str) -> tuple[str, bool]:
    """What a user is shown of an event, and whether it is the sender's own words."""
    content = event.content
    if is_encrypted(event):
        return "sent an encrypted message", False
    if is_member_event(event):
        return _membership(event, user_id), False
    if is_state(event, TOMBSTONE):
        return "upgraded the room", False
    if event.state_key is not None:
        return "changed the room", False
    if not is_message(event):
        return OF_EVENTS.get(event.type, "did something that your client shows"), False
    msgtype: Any = content.get("msgtype")
    if isinstance(msgtype, str) and msgtype in OF_MESSAGES:
        return OF_MESSAGES[msgtype], False
    body: Any = content.get("body")
    text = clean(body, MAX_TEXT) if isinstance(body, str) else ""
    if not text:
        return "sent a message", False
    return text, msgtype != "m.emote"


def _membership(event: Event, user_id: str) -> str:
    if event.content.get("membership") == "invite":
        return "invites you" if event.state_key == user_id else "invited somebody"
    return "changed who is in the room"


def _shown(character: str) -> str:
    if character == ZERO_WIDTH_JOINER or unicodedata.category(character)[0] in SHOWN_CATEGORIES:
        return character
    is_space = character.isspace() or unicodedata.category(character)[0] == "Z"
    return " " if is_space else ""
