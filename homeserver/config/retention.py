"""The settings of how long messages are kept."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from homeserver.config.fields import Mistake, Section, doc

Lifetime = Annotated[int, msgspec.Meta(ge=1)] | None


class RetentionSettings(Section, frozen=True, kw_only=True):
    """How long messages are kept in rooms that limit it (`m.room.retention`), and in all others."""

    enabled: Annotated[
        bool,
        doc(
            "Whether messages that are older than the lifetime of their room are hidden, and later"
            " deleted. State is always kept."
        ),
    ] = False
    default_lifetime: Annotated[
        Lifetime,
        doc("The lifetime in rooms that say nothing of it; `null` for no end.", unit="seconds"),
    ] = None
    min_lifetime: Annotated[
        Lifetime,
        doc("The shortest lifetime that a room may choose; `null` for any.", unit="seconds"),
    ] = None
    max_lifetime: Annotated[
        Lifetime,
        doc("The longest lifetime that a room may choose; `null` for any.", unit="seconds"),
    ] = None
    purge_interval: Annotated[
        int,
        doc("The time between two deletions of expired messages.", unit="hours", ge=1),
    ] = 12

    def mistakes(self) -> Iterator[Mistake]:
        if (self.max_lifetime or 0) and (self.min_lifetime or 0) > (self.max_lifetime or 0):
            yield Mistake("min_lifetime is above max_lifetime", ("min_lifetime", "max_lifetime"))
