"""How long the messages of a room are kept: `m.room.retention`, a state event, and the server's
limits.

Proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/1763
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class LifetimeLimits(msgspec.Struct, frozen=True):
    """What a server allows; all in ms.

    `default` is the lifetime of messages in rooms that say nothing, `None` for no end. Of a room's
    own lifetime at least `least` and at most `most` are in force.
    """

    default: int | None = None
    least: int | None = None
    most: int | None = None

    def lifetime(self, content: Mapping[str, Any] | None) -> int | None:
        """How long a room with this `m.room.retention` keeps messages; `None` without end.

        A policy that makes no sense counts as none.
        """
        wanted = None if content is None else _lifetime(content)
        if wanted is None:
            return self.default
        if self.most is not None:
            wanted = min(wanted, self.most)
        return wanted if self.least is None else max(wanted, self.least)


def _lifetime(content: Mapping[str, Any]) -> int | None:
    least, most = content.get("min_lifetime"), content.get("max_lifetime")
    if not _is_duration(most) or (least is not None and not _is_duration(least)):
        return None
    return most if least is None or least <= most else None


def _is_duration(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
