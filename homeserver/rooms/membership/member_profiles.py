"""What member events say of their users: the seam between rooms and the profiles of accounts."""

from typing import Protocol


class MemberProfiles(Protocol):
    """What a user's membership events say about them."""

    async def member_fields(self, user_id: str) -> dict[str, str]:
        """`displayname` and `avatar_url`, where the user has them."""
