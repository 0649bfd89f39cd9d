"""The state of a pusher's mails: the mail that is being sent, and the pauses of rooms.

Pure: times are seconds since the epoch, and arguments.
"""

import msgspec

DAY_SECONDS = 86_400.0
MAX_ROOMS = 100  # whose pauses are stored; the others have the shortest one


class RoomPause(msgspec.Struct, frozen=True, array_like=True):
    """When a room was in a mail last, and how long it is in no further one.

    `position` is the one up to which the mail went.
    """

    position: int
    mailed_at: float
    seconds: float

    @property
    def ends_at(self) -> float:
        """The time from which the room may cause a mail."""
        return self.mailed_at + self.seconds


class DigestState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a pusher has mailed.

    `mailing` is the position up to which the mail goes that is being sent. It is stored before the
    mail is sent, so that a mail whose delivery the server did not live to record is sent once more
    as the same mail. `waiting_since` is when the first event began to wait.
    """

    mailing: int | None = None
    waiting_since: float | None = None
    rooms: dict[int, RoomPause] = {}

    def mailed(self, pauses: dict[int, float], upto: int, now: float) -> "DigestState":
        """The state after a mail up to a position, with the next pause of each room in it."""
        rooms = {**self.rooms, **{nid: RoomPause(upto, now, each) for nid, each in pauses.items()}}
        latest = sorted(rooms, key=lambda nid: rooms[nid].mailed_at)[-MAX_ROOMS:]
        return DigestState(rooms={nid: rooms[nid] for nid in latest})


NO_MAILS = DigestState()


def decode_state(encoded: bytes | None) -> DigestState:
    """The state that is stored."""
    return NO_MAILS if encoded is None else msgspec.json.decode(encoded, type=DigestState)


def encode_state(state: DigestState) -> bytes | None:
    """The state to be stored."""
    return None if state == NO_MAILS else msgspec.json.encode(state)


def noted_at(sent_ms: int, waiting_since: float, now: float) -> float:
    """When an event began to wait. The time of its sender counts only where it can be true."""
    sent_at = sent_ms / 1000
    return sent_at if waiting_since <= sent_at <= now else min(waiting_since, now)


def is_quiet(pause: RoomPause, first_unread_at: float, now: float) -> bool:
    """Whether nothing notified the user in a room for a day after its last mail.

    A mail of the future was sent before the clock was set back: nobody knows when.
    """
    return first_unread_at - pause.mailed_at >= DAY_SECONDS or pause.mailed_at > now


def next_pause(before: RoomPause | None, first: float) -> float:
    """The seconds after a mail: twice those before it, up to a day."""
    return first if before is None else min(max(before.seconds * 2, first), DAY_SECONDS)
