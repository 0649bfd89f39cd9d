"""Unstable names: what clients, bridges and servers call what is specified, or only proposed.

A proposal has names of its own until it is specified, and clients keep using them for years: they
look for flags in `/versions`, and send and read members under the proposal's names. All such names
that this server knows are here, with what they mean; `PROPOSALS` makes `/versions` and a table in
docs/conformance.md. Where a name is a constant, the module that reads or writes it imports it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-versions
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from homeserver.protocol.event_types import INVITE_PERMISSION_CONFIG

UNSTABLE_USE_STATE_AFTER: Final = "org.matrix.msc4222.use_state_after"
UNSTABLE_STATE_AFTER: Final = "org.matrix.msc4222.state_after"
UNSTABLE_FALLBACK_KEYS: Final = "org.matrix.msc2732.fallback_keys"
UNSTABLE_INVITE_PERMISSIONS: Final = (
    "org.matrix.msc4155.invite_permission_config",
    "org.matrix.msc4380.invite_permission_config",
)
PUSHER_PREFIX: Final = "org.matrix.msc3881."
PUSHER_ENABLED: Final = f"{PUSHER_PREFIX}enabled"
LOCAL_NOTIFICATIONS_PREFIX: Final = "org.matrix.msc3890.local_notification_settings."
MASQUERADED_DEVICE: Final = "org.matrix.msc3202.device_id"
WITH_RELATIONS: Final = "org.matrix.msc3912.with_relations"
DELAYED_EVENTS_PATH: Final = "/_matrix/client/unstable/org.matrix.msc4140"
DELAYED_EVENTS_CAPABILITY: Final = "org.matrix.msc4140.delayed_events"
UNSTABLE_DELAY: Final = "org.matrix.msc4140.delay"
UNSTABLE_PARENT_DELAY: Final = "org.matrix.msc4140.parent_delay_id"
UNSTABLE_DELAY_ID: Final = "org.matrix.msc4140.delay_id"
UNSTABLE_MAX_DELAY: Final = "org.matrix.msc4140.max_delay"
UNSTABLE_DELAY_ERRCODE: Final = "org.matrix.msc4140.errcode"
UNSTABLE_STICKY: Final = "msc4354_sticky"
UNSTABLE_STICKY_DURATION: Final = "org.matrix.msc4354.sticky_duration_ms"
UNSTABLE_STICKY_TTL: Final = "msc4354_sticky_duration_ttl_ms"
UNSTABLE_STICKY_EXTENSION: Final = "org.matrix.msc4354.sticky_events"
RTC_TRANSPORTS: Final = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"
RTC_FOCI: Final = "org.matrix.msc4143.rtc_foci"
THREAD_SUBSCRIPTION: Final = (
    "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{event_id}/subscription"
)
THREAD_ERRORS: Final = "IO.ELEMENT.MSC4306."  # before an errcode
UNSUBSCRIBED_THREAD_RULE: Final = ".io.element.msc4306.rule.unsubscribed_thread"
SUBSCRIBED_THREAD_RULE: Final = ".io.element.msc4306.rule.subscribed_thread"
THREAD_CONDITION: Final = "io.element.msc4306.thread_subscription"
THREADS_EXTENSION: Final = "io.element.msc4308.thread_subscriptions"
THREAD_SUBSCRIPTIONS: Final = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
AUTH_METADATA: Final = "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"
UNSTABLE_SCOPE: Final = "urn:matrix:org.matrix.msc2967.client:"
UNSTABLE_OAUTH_STAGE: Final = "org.matrix.cross_signing_reset"
UNSTABLE_OAUTH_AWARE: Final = "org.matrix.msc3824.delegated_oidc_compatibility"
UNSTABLE_SSO_ACTION: Final = "org.matrix.msc3824.action"
RENDEZVOUS: Final = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
CONCURRENT_WRITE: Final = "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"  # an errcode
ENTITY_TAG_RENDEZVOUS: Final = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
DEHYDRATED_DEVICE: Final = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
MUTUAL_ROOMS: Final = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
PROFILES_EXTENSION: Final = "org.matrix.msc4262.profiles"
UNSTABLE_PROFILE_FIELDS: Final = "org.matrix.msc4429.profile_fields"
UNSTABLE_USERS: Final = "org.matrix.msc4429.users"
PROFILE_FIELD: Final = "/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}/{key_name}"
ROOM_SUMMARIES: Final = (
    "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}",
    "/_matrix/client/unstable/im.nheko.summary/rooms/{room_id_or_alias}/summary",
)
SUMMARY_ROOM_VERSION: Final = "im.nheko.summary.room_version"
SUMMARY_ENCRYPTION: Final = "im.nheko.summary.encryption"
MUTUAL_ROOMS_FROM: Final = "batch_token"
MUTUAL_ROOMS_NEXT: Final = "next_batch_token"

DELAYED_EVENTS: Final = ("org.matrix.msc4140", "org.matrix.msc4140.stable")
SLIDING_SYNC: Final = "org.matrix.simplified_msc3575"
THREADS: Final = "org.matrix.msc4306"
QR_LOGIN: Final = "org.matrix.msc4108"
STREAM: Final = "io.homeserver.stream"
STREAM_ERRORS: Final = "IO.HOMESERVER.STREAM."  # before an errcode
IMPORT: Final = "com.beeper.batch_sending"


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal with names of its own. `msc` is its number; 0 if it is no numbered proposal.

    `flags` are shown in `/versions`, unless `is_conditional`: then only where the feature is on.
    `specified` is the version of the specification that has it. `endpoints` are those that the
    flags promise beyond the specification's, as "METHOD path". `names` are parameters, members and
    types, by unstable name; the value is the specified name, or what the name means.
    """

    msc: int
    subject: str
    flags: tuple[str, ...] = ()
    is_conditional: bool = False
    specified: str | None = None
    endpoints: tuple[str, ...] = ()
    names: Mapping[str, str] = msgspec.field(default_factory=dict)


PROPOSALS: Final = (
    Proposal(
        msc=2246,
        subject="uploads to an address that was created before",
        flags=("fi.mau.msc2246.stable",),
        specified="v1.7",
    ),
    Proposal(
        msc=2285,
        subject="private read receipts",
        flags=("org.matrix.msc2285.stable",),
        specified="v1.4",
    ),
    Proposal(
        msc=2659,
        subject="pings of application services",
        flags=("fi.mau.msc2659.stable",),
        specified="v1.7",
    ),
    Proposal(
        msc=2666,
        subject="mutual rooms",
        flags=(
            "uk.half-shot.msc2666.query_mutual_rooms",
            "uk.half-shot.msc2666.query_mutual_rooms.stable",
        ),
        specified="v1.19",
        endpoints=(f"GET {MUTUAL_ROOMS}",),
        names={MUTUAL_ROOMS_FROM: "from", MUTUAL_ROOMS_NEXT: "next_batch"},
    ),
    Proposal(
        msc=2732,
        subject="fallback keys",
        specified="v1.2",
        names={UNSTABLE_FALLBACK_KEYS: "fallback_keys"},
    ),
    Proposal(
        msc=2967,
        subject="scopes of the [OAuth 2.0 API](authentication.md#the-oauth-20-api)",
        specified="v1.15",
        names={
            f"{UNSTABLE_SCOPE}api:*": "urn:matrix:client:api:*",
            f"{UNSTABLE_SCOPE}device:ID": "urn:matrix:client:device:ID",
        },
    ),
    Proposal(
        msc=3202,
        subject="devices of users of application services",
        names={MASQUERADED_DEVICE: "device_id"},
        specified="v1.17",
    ),
    Proposal(
        msc=3266,
        subject="summaries of rooms",
        specified="v1.15",
        endpoints=tuple(f"GET {path}" for path in ROOM_SUMMARIES),
        names={SUMMARY_ROOM_VERSION: "room_version", SUMMARY_ENCRYPTION: "encryption"},
    ),
    Proposal(
        msc=3440,
        subject="threads",
        flags=("org.matrix.msc3440.stable",),
        specified="v1.4",
    ),
    Proposal(
        msc=3715,
        subject="relations in both directions",
        flags=("org.matrix.msc3715.stable",),
        specified="v1.4",
    ),
    Proposal(
        msc=3814,
        subject="dehydrated devices",
        flags=("org.matrix.msc3814",),
        endpoints=tuple(f"{method} {DEHYDRATED_DEVICE}" for method in ("GET", "PUT", "DELETE")),
    ),
    Proposal(
        msc=3824,
        subject="clients that know of the OAuth 2.0 API, but log in by the legacy one",
        specified="v1.18",
        names={UNSTABLE_OAUTH_AWARE: "oauth_aware_preferred", UNSTABLE_SSO_ACTION: "action"},
    ),
    Proposal(
        msc=3856,
        subject="the list of threads",
        flags=("org.matrix.msc3856.stable",),
        specified="v1.4",
    ),
    Proposal(
        msc=3881,
        subject="switching pushers off from other devices",
        flags=("org.matrix.msc3881", "org.matrix.msc3881.stable"),
        names={PUSHER_ENABLED: "enabled", f"{PUSHER_PREFIX}device_id": "device_id"},
    ),
    Proposal(
        msc=3890,
        subject="account data of one device, which ends with the device",
        names={f"{LOCAL_NOTIFICATIONS_PREFIX}DEVICE": "m.local_notification_settings.DEVICE"},
    ),
    Proposal(
        msc=3912,
        subject="redactions that include related events",
        flags=("org.matrix.msc3912",),
        names={WITH_RELATIONS: "with_rel_types"},
    ),
    Proposal(
        msc=3916,
        subject="authenticated media",
        flags=("org.matrix.msc3916.stable",),
        specified="v1.11",
    ),
    Proposal(
        msc=4108,
        subject="[signing in by a QR code](authentication.md#signing-in-by-a-qr-code), in the form"
        " that deployed clients speak, with the OAuth 2.0 API",
        flags=(QR_LOGIN,),
        is_conditional=True,
        endpoints=(
            f"POST {ENTITY_TAG_RENDEZVOUS}",
            *(
                f"{method} {ENTITY_TAG_RENDEZVOUS}/{{rendezvous_id}}"
                for method in ("GET", "PUT", "DELETE")
            ),
        ),
    ),
    Proposal(
        msc=4133,
        subject="fields of profiles",
        flags=("uk.tcpip.msc4133", "uk.tcpip.msc4133.stable"),
        specified="v1.16",
        endpoints=tuple(f"{method} {PROFILE_FIELD}" for method in ("GET", "PUT", "DELETE")),
    ),
    Proposal(
        msc=4140,
        subject="[delayed events](calls.md), unless they are switched off",
        flags=DELAYED_EVENTS,
        is_conditional=True,
        endpoints=tuple(
            endpoint
            for rooms, manage in (
                (f"{DELAYED_EVENTS_PATH}/rooms", f"{DELAYED_EVENTS_PATH}/delayed_events"),
                ("/_matrix/client/v3/rooms", "/_matrix/client/v1/delayed_events"),
            )
            for endpoint in (
                f"PUT {rooms}/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}",
                f"GET {manage}",
                f"GET {manage}/{{delay_id}}",
                *(f"POST {manage}/{{delay_id}}/{each}" for each in ("send", "cancel", "restart")),
            )
        ),
        names={
            UNSTABLE_DELAY: "a delay in ms, in the query of a request that sends",
            UNSTABLE_PARENT_DELAY: "refused, as nothing is sent after another delayed event",
            UNSTABLE_DELAY_ID: "delay_id",
            UNSTABLE_MAX_DELAY: "the longest delay, in an error",
            UNSTABLE_DELAY_ERRCODE: "the kind of an error",
            DELAYED_EVENTS_CAPABILITY: "m.delayed_events",
        },
    ),
    Proposal(
        msc=4143,
        subject="transports of MatrixRTC",
        flags=("org.matrix.msc4143",),
        endpoints=(f"GET {RTC_TRANSPORTS}", "GET /_matrix/client/v1/rtc/transports"),
        names={RTC_FOCI: "the transports, in `/.well-known/matrix/client`"},
    ),
    Proposal(
        msc=4155,
        subject="filtering invites",
        flags=("org.matrix.msc4155",),
        names={UNSTABLE_INVITE_PERMISSIONS[0]: INVITE_PERMISSION_CONFIG},
    ),
    Proposal(
        msc=4169,
        subject="redactions that are sent as events, in all room versions",
        flags=("com.beeper.msc4169",),
    ),
    Proposal(
        msc=4186,
        subject="[simplified sliding sync](sync.md)",
        flags=(SLIDING_SYNC,),
        endpoints=(
            "POST /_matrix/client/v4/sync",
            f"POST /_matrix/client/unstable/{SLIDING_SYNC}/sync",
        ),
    ),
    Proposal(
        msc=4222,
        subject="the state at the end of a timeline",
        specified="v1.16",
        names={UNSTABLE_USE_STATE_AFTER: "use_state_after", UNSTABLE_STATE_AFTER: "state_after"},
    ),
    Proposal(
        msc=4262,
        subject="[profiles](sync.md#profiles) in sliding sync",
        flags=("org.matrix.msc4262",),
        names={PROFILES_EXTENSION: "profiles"},
    ),
    Proposal(
        msc=4306,
        subject="[subscriptions to threads](sync.md#subscriptions-to-threads), if switched on",
        flags=(THREADS,),
        is_conditional=True,
        endpoints=tuple(f"{method} {THREAD_SUBSCRIPTION}" for method in ("GET", "PUT", "DELETE")),
        names={
            UNSUBSCRIBED_THREAD_RULE: ".m.rule.unsubscribed_thread",
            SUBSCRIBED_THREAD_RULE: ".m.rule.subscribed_thread",
            THREAD_CONDITION: "thread_subscription",
        },
    ),
    Proposal(
        msc=4308,
        subject="changes of these subscriptions, by sliding sync and page by page",
        endpoints=(f"GET {THREAD_SUBSCRIPTIONS}",),
        names={THREADS_EXTENSION: "thread_subscriptions"},
    ),
    Proposal(
        msc=4312,
        subject="replacing cross-signing keys with the OAuth 2.0 API",
        specified="v1.17",
        names={UNSTABLE_OAUTH_STAGE: "m.oauth"},
    ),
    Proposal(
        msc=4323,
        subject="suspending and locking accounts",
        flags=("uk.timedout.msc4323.stable",),
        specified="v1.18",
    ),
    Proposal(
        msc=4354,
        subject="[sticky events](sync.md#sticky-events)",
        flags=("org.matrix.msc4354",),
        names={
            UNSTABLE_STICKY: "sticky",
            UNSTABLE_STICKY_DURATION: "sticky_duration_ms",
            UNSTABLE_STICKY_TTL: "sticky_duration_ttl_ms",
        },
    ),
    Proposal(
        msc=4380,
        subject="blocking all invites",
        flags=("org.matrix.msc4380", "org.matrix.msc4380.stable"),
        specified="v1.18",
        names={UNSTABLE_INVITE_PERMISSIONS[1]: INVITE_PERMISSION_CONFIG},
    ),
    Proposal(
        msc=4388,
        subject="the same in the form that is proposed now",
        endpoints=(
            *(f"{method} {RENDEZVOUS}" for method in ("GET", "POST")),
            *(f"{method} {RENDEZVOUS}/{{rendezvous_id}}" for method in ("GET", "PUT", "DELETE")),
        ),
        names={CONCURRENT_WRITE: "M_CONCURRENT_WRITE"},
    ),
    Proposal(
        msc=4429,
        subject="[profiles](sync.md#profiles) in `/sync`",
        flags=("org.matrix.msc4429",),
        names={UNSTABLE_PROFILE_FIELDS: "profile_fields", UNSTABLE_USERS: "users"},
    ),
    Proposal(
        msc=4480,
        subject="sticky events by sliding sync",
        names={UNSTABLE_STICKY_EXTENSION: "sticky_events"},
    ),
    Proposal(
        msc=0,
        subject="the [WebSocket transport](websocket.md)",
        flags=(STREAM,),
        is_conditional=True,
        endpoints=("GET /_matrix/client/v3/stream",),
    ),
    Proposal(
        msc=0,
        subject="[importing history](history-import.md), shown to application services that may",
        flags=(IMPORT,),
        is_conditional=True,
        endpoints=("POST /_matrix/client/unstable/com.beeper.backfill/rooms/{room_id}/batch_send",),
    ),
)


def flags_of(proposals: tuple[Proposal, ...] = PROPOSALS) -> dict[str, bool]:
    """The flags that every client sees in `/versions`."""
    return {flag: True for each in proposals if not each.is_conditional for flag in each.flags}
