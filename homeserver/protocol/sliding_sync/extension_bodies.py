"""The extensions in a request, which both forms have in common.

Spec: MSC4186
"""

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.proposals.unstable_names import (
    PROFILES_EXTENSION,
    THREADS_EXTENSION,
    UNSTABLE_STICKY_EXTENSION,
)
from homeserver.protocol.sliding_sync.request import (
    DEFAULT_MESSAGES,
    DEFAULT_STICKY_EVENTS,
    DEFAULT_SUBSCRIPTIONS,
    MAX_PROFILE_FIELD_BYTES,
    MAX_PROFILE_FIELDS,
    MAX_STICKY_EVENTS,
    ExtensionConfigs,
    ExtensionScope,
    ProfilesConfig,
    StickyConfig,
    ToDeviceConfig,
    check_count,
)

PROFILES = "profiles"
STICKY_EXTENSION = "sticky_events"


class ToDeviceBody(msgspec.Struct):
    enabled: bool | None = None
    limit: int | None = None
    since: str | None = None


class StickyBody(msgspec.Struct):
    enabled: bool | None = None
    limit: int | None = None
    since: str | None = None


class ThreadsBody(msgspec.Struct):
    enabled: bool | None = None
    limit: int | None = None


class EnabledBody(msgspec.Struct):
    enabled: bool | None = None


class ScopedBody(msgspec.Struct):
    """An extension for the rooms of lists and subscriptions."""

    enabled: bool | None = None
    lists: list[str] | None = None
    rooms: list[str] | None = None

    def scope(self) -> ExtensionScope | None:
        """The scope of the extension, if it is enabled."""
        if not self.enabled:
            return None
        return ExtensionScope(
            None if self.lists is None else frozenset(self.lists),
            None if self.rooms is None else frozenset(self.rooms),
        )


class ProfilesBody(ScopedBody):
    fields: list[str] | None = None


class ExtensionBodies(msgspec.Struct):
    """`extensions`; others are ignored."""

    to_device: ToDeviceBody | None = None
    e2ee: EnabledBody | None = None
    account_data: ScopedBody | None = None
    receipts: ScopedBody | None = None
    typing: ScopedBody | None = None
    threads: ThreadsBody | None = msgspec.field(name=THREADS_EXTENSION, default=None)
    profiles: ProfilesBody | None = None
    unstable_profiles: ProfilesBody | None = msgspec.field(name=PROFILES_EXTENSION, default=None)
    sticky_events: StickyBody | None = None
    unstable_sticky: StickyBody | None = msgspec.field(name=UNSTABLE_STICKY_EXTENSION, default=None)

    def configs(self) -> ExtensionConfigs:
        """The value. Raises `InvalidParam`."""
        return ExtensionConfigs(
            _to_device(self.to_device),
            self.e2ee is not None and bool(self.e2ee.enabled),
            None if self.account_data is None else self.account_data.scope(),
            None if self.receipts is None else self.receipts.scope(),
            None if self.typing is None else self.typing.scope(),
            _threads(self.threads),
            _profiles(PROFILES, self.profiles)
            or _profiles(PROFILES_EXTENSION, self.unstable_profiles),
            _sticky(STICKY_EXTENSION, self.sticky_events)
            or _sticky(UNSTABLE_STICKY_EXTENSION, self.unstable_sticky),
        )


def _to_device(body: ToDeviceBody | None) -> ToDeviceConfig | None:
    if body is None or not body.enabled:
        return None
    limit = DEFAULT_MESSAGES if body.limit is None else body.limit
    if limit < 1:
        raise InvalidParam("`limit` of messages to the device is at least 1")
    return ToDeviceConfig(body.since, min(limit, DEFAULT_MESSAGES))


def _threads(body: ThreadsBody | None) -> int | None:
    if body is None or not body.enabled:
        return None
    limit = DEFAULT_SUBSCRIPTIONS if body.limit is None else body.limit
    if limit < 1:
        raise InvalidParam("`limit` of subscriptions to threads is at least 1")
    return min(limit, DEFAULT_SUBSCRIPTIONS)


def _profiles(name: str, body: ProfilesBody | None) -> ProfilesConfig | None:
    scope = None if body is None else body.scope()
    if body is None or scope is None:
        return None
    fields = body.fields
    if fields is None:
        return ProfilesConfig(scope, None, name)
    check_count(name, fields, MAX_PROFILE_FIELDS)
    if any(len(field.encode()) > MAX_PROFILE_FIELD_BYTES for field in fields):
        raise InvalidParam(
            f"The name of a field of a profile has at most {MAX_PROFILE_FIELD_BYTES} bytes"
        )
    return ProfilesConfig(scope, frozenset(fields), name)


def _sticky(name: str, body: StickyBody | None) -> StickyConfig | None:
    if body is None or not body.enabled:
        return None
    limit = DEFAULT_STICKY_EVENTS if body.limit is None else body.limit
    if limit < 1:
        raise InvalidParam("`limit` of sticky events is at least 1")
    return StickyConfig(name, body.since, min(limit, MAX_STICKY_EVENTS))
