"""The profile fields of member events: the port between rooms and accounts."""

from typing import Protocol


class MemberProfiles(Protocol):
    """Profiles of users for their member events."""

    async def member_fields(self, user_id: str) -> dict[str, str]:
        """`displayname` and `avatar_url`, if the user has them."""
