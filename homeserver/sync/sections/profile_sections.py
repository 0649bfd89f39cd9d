"""The profiles in an update of `/sync`, for clients whose filter has `profile_fields`.

A client that lazy-loads members is sent whole profiles of those whose events it is sent, each once
as long as this server remembers it; other clients those of all members. Changes are sent to both.

Spec: MSC4429
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from homeserver.concurrency.lru_cache import LruCache
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.profile_updates import ProfileDelta, ProfileNews, ProfileUpdates
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update, encode

MAX_SENT = 500_000  # (device, user), of all devices together
NOT_SHARED = b'{"profile_updates":null}'


class _Sent(NamedTuple):
    """A whole profile was sent, in the response after which the client has this token."""

    token: SyncToken
    fields: frozenset[str]


class SentProfileCache:
    """The whole profiles that each device has. What is evicted here is merely sent once more."""

    def __init__(self) -> None:
        self._devices: LruCache[tuple[str, ...], dict[str, _Sent]] = LruCache(
            "sent_profiles", MAX_SENT, size_of=lambda _, sent: len(sent)
        )

    def unsent(
        self, request: SyncRequest, user_ids: Iterable[str], since: SyncToken | None
    ) -> set[str]:
        """The users, of those given, whose profiles the device does not have at a token.

        A response that got lost is asked for again with an older token than that after it.
        """
        known = None if since is None else self._devices.get(request.recipient)
        if known is None or since is None:
            return set(user_ids)
        fields = request.profile_fields
        return {
            user_id
            for user_id in user_ids
            if (sent := known.get(user_id)) is None
            or not (fields <= sent.fields and sent.token.is_within(since))
        }

    def mark(
        self,
        request: SyncRequest,
        token: SyncToken,
        sent: Iterable[str],
        dropped: Iterable[str],
        *,
        starts_over: bool,
    ) -> None:
        """Note the profiles of a response after which the client has `token`."""
        known = None if starts_over else self._devices.peek(request.recipient)
        known = {} if known is None else known
        entry = _Sent(token, request.profile_fields)
        known.update(dict.fromkeys(sent, entry))
        for user_id in dropped:
            known.pop(user_id, None)
        self._devices.put(request.recipient, known)


class ProfileSections:
    """Adds profiles to updates."""

    def __init__(self, updates: ProfileUpdates) -> None:
        self._updates = updates
        self._sent = SentProfileCache()

    async def add(
        self,
        update: Update,
        request: SyncRequest,
        memberships: MemberRooms,
        candidates: Collection[int],
    ) -> None:
        """Add what is new of profiles. `candidates` are the rooms in which anything changed."""
        self._updates.follow(request.user_id)
        fields, since = request.profile_fields, update.span.since
        is_whole = since is None or request.full_state
        news = ProfileNews()
        if since is not None:
            user_id = request.user_id
            news = await self._updates.since(user_id, since, fields, memberships, candidates)
        if request.lazy:
            shown = self._updates.local(update.shown or ()).difference(news.left)
            whole = self._sent.unsent(request, shown, None if is_whole else since)
        elif is_whole:
            joined = [nid for nid, place in memberships.items() if place.membership == "join"]
            whole = await self._updates.members(joined)
        else:
            whole = self._updates.local(news.joined)
        if is_whole:
            whole.add(request.user_id)
        deltas = await self._updates.deltas(whole, news.changed, fields)
        update.users_name = request.users_name
        update.users = {user_id: _section(delta) for user_id, delta in deltas.items()} | (
            dict.fromkeys(news.left, NOT_SHARED)
        )
        update.span.has_users(news.positions)
        if request.lazy and (is_whole or whole or news.left):
            self._sent.mark(request, update.span.token, whole, news.left, starts_over=since is None)


def _section(delta: ProfileDelta) -> bytes:
    members = [b"%s:%s" % (encode(name), value) for name, value in delta.updated.items()]
    members += [b"%s:null" % encode(name) for name in delta.removed]
    return b'{"profile_updates":{%s}}' % b",".join(members)
