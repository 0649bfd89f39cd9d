"""Limits on the requests of clients and servers: rates, sizes, times and sockets.

A rate is a token bucket: `burst` actions at once, then `per_second`. Routes refer to a rate by the
name of its field in `RateLimitSettings`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
"""

from typing import Annotated

import msgspec

from homeserver.config.fields import Section, doc


class RateSettings(Section, frozen=True, kw_only=True):
    """A rate: the number of actions over time."""

    per_second: Annotated[float, doc("The long-term average.", unit="per second", gt=0)]
    burst: Annotated[int, doc("The number of actions at once.", unit="actions", ge=1)]


class UserRateSettings(Section, frozen=True, kw_only=True):
    """The rates of one user for all actions, such as of a bot that writes much."""

    user_id: Annotated[str, doc("The user.", pattern="^@")]
    unlimited: Annotated[bool, doc("No limits at all.")] = False
    per_second: Annotated[
        float, doc("The long-term average for each kind of action.", unit="per second", gt=0)
    ] = 100.0
    burst: Annotated[
        int, doc("The number of actions of each kind at once.", unit="actions", ge=1)
    ] = 1_000


class RateLimitSettings(Section, frozen=True, kw_only=True):
    """The rates of one user, or of one address (IPv6: /64 network) for requests without a user."""

    enabled: Annotated[bool, doc("Apply these limits.")] = True
    users: Annotated[
        tuple[UserRateSettings, ...],
        doc(
            "Users with separate rates, in place of all that follow.",
            example='[{user_id: "@bot:example.org", per_second: 100.0, burst: 1000}]',
        ),
    ] = ()
    message: Annotated[
        RateSettings, doc("Sending, changing state and redacting, for each user.")
    ] = RateSettings(per_second=10.0, burst=50)
    registration: Annotated[RateSettings, doc("Registering an account, for each address.")] = (
        RateSettings(per_second=0.2, burst=10)
    )
    availability: Annotated[
        RateSettings,
        doc(
            "Requests on the way to an account, such as checking if a user name is available, for"
            " each address."
        ),
    ] = RateSettings(per_second=1.0, burst=100)
    login: Annotated[RateSettings, doc("Logging in and entering a password, for each address.")] = (
        RateSettings(per_second=0.2, burst=10)
    )
    password: Annotated[
        RateSettings, doc("Entering the password of one account, from all addresses together.")
    ] = RateSettings(per_second=0.1, burst=20)
    oauth: Annotated[
        RateSettings,
        doc(
            "Registering clients, requesting codes for devices and making rendezvous sessions, for"
            " each address."
        ),
    ] = RateSettings(per_second=1.0, burst=50)
    validation: Annotated[
        RateSettings,
        doc("Requesting a mail that validates an e-mail address, for each IP address."),
    ] = RateSettings(per_second=0.05, burst=5)
    mail: Annotated[
        RateSettings, doc("Mails to one e-mail address, for all requests together.")
    ] = RateSettings(per_second=0.002, burst=4)
    report: Annotated[RateSettings, doc("Reporting users, rooms and events, for each user.")] = (
        RateSettings(per_second=0.1, burst=10)
    )
    join: Annotated[RateSettings, doc("Joining and knocking, for each user.")] = RateSettings(
        per_second=1.0, burst=20
    )
    invite: Annotated[RateSettings, doc("Inviting, for each user.")] = RateSettings(
        per_second=1.0, burst=50
    )
    remote_invite: Annotated[RateSettings, doc("Inviting local users, for each remote server.")] = (
        RateSettings(per_second=5.0, burst=200)
    )
    room_creation: Annotated[RateSettings, doc("Creating and upgrading rooms, for each user.")] = (
        RateSettings(per_second=0.2, burst=10)
    )
    profile: Annotated[RateSettings, doc("Changing one's own profile, for each user.")] = (
        RateSettings(per_second=0.5, burst=10)
    )
    presence: Annotated[RateSettings, doc("Setting presence, for each user.")] = RateSettings(
        per_second=1.0, burst=10
    )
    ephemeral: Annotated[
        RateSettings,
        doc("Typing notices, receipts and read markers, for each user."),
    ] = RateSettings(per_second=20.0, burst=100)
    keys: Annotated[
        RateSettings,
        doc("Uploading and claiming keys of devices, and changing backed up keys, for each user."),
    ] = RateSettings(per_second=20.0, burst=200)
    to_device: Annotated[
        RateSettings, doc("Requests that send messages to devices, for each user.")
    ] = RateSettings(per_second=50.0, burst=500)
    remote_to_device: Annotated[
        RateSettings,
        doc("Messages to devices that another server sends, for each server; the rest must wait."),
    ] = RateSettings(per_second=100.0, burst=5_000)
    remote_sticky: Annotated[
        RateSettings,
        doc("Sticky events that another server sends, for each server; the rest must wait."),
    ] = RateSettings(per_second=20.0, burst=2_000)
    settings: Annotated[
        RateSettings,
        doc(
            "Changing account data, tags, filters, push rules, devices, key backups, aliases and"
            " the room directory, and requesting OpenID tokens, for each user."
        ),
    ] = RateSettings(per_second=5.0, burst=100)
    lookup: Annotated[
        RateSettings,
        doc(
            "Looking up profiles, aliases, capabilities, backed up keys and the like, for each"
            " user, or each address if no log-in is needed."
        ),
    ] = RateSettings(per_second=50.0, burst=500)
    appservice_query: Annotated[
        RateSettings,
        doc(
            "Asking application services for unknown users and aliases, and about their networks,"
            " for each user, remote server, or address."
        ),
    ] = RateSettings(per_second=1.0, burst=50)
    search: Annotated[RateSettings, doc("Searching rooms, users and messages, for each user.")] = (
        RateSettings(per_second=2.0, burst=20)
    )
    room_lookup: Annotated[
        RateSettings,
        doc("Looking up summaries of rooms and the hierarchies of spaces, for each user."),
    ] = RateSettings(per_second=10.0, burst=200)
    upload: Annotated[RateSettings, doc("Uploading files, for each user.")] = RateSettings(
        per_second=5.0, burst=300
    )
    media: Annotated[
        RateSettings,
        doc(
            "Downloading files and thumbnails, for each user or server, or each address if no"
            " log-in is needed."
        ),
    ] = RateSettings(per_second=50.0, burst=1_000)
    remote_media: Annotated[
        RateSettings,
        doc(
            "Downloading files of other servers that are not cached, for each user, or each address"
            " if no log-in is needed."
        ),
    ] = RateSettings(per_second=5.0, burst=200)
    url_preview: Annotated[
        RateSettings,
        doc("Previews of URLs for which a page has to be fetched, for each user."),
    ] = RateSettings(per_second=0.5, burst=50)
    key_query: Annotated[
        RateSettings, doc("Requesting the keys of other servers, for each address.")
    ] = RateSettings(per_second=10.0, burst=100)

    def actions(self) -> dict[str, RateSettings]:
        """Every limited action with its rate."""
        values = msgspec.structs.asdict(self)
        return {name: rate for name, rate in values.items() if isinstance(rate, RateSettings)}


class LimitSettings(Section, frozen=True, kw_only=True):
    """Sizes and times of requests, and the sizes of the caches that take most memory."""

    max_body: Annotated[
        int, doc("The largest body of a request, except for uploads.", unit="bytes", ge=65_536)
    ] = 1_048_576
    max_bodies: Annotated[
        int,
        doc(
            "Memory for the bodies of all requests that are received or handled. One address"
            " gets a quarter of it.",
            unit="bytes",
            ge=67_108_864,
        ),
    ] = 268_435_456
    max_sync_wait: Annotated[
        float,
        doc("The longest time for which a client may let `/sync` wait.", unit="seconds", gt=0),
    ] = 300.0
    request_timeout: Annotated[
        float, doc("The time for a client to send its whole request.", unit="seconds", gt=0)
    ] = 60.0
    idle_timeout: Annotated[
        float,
        doc("An idle connection is closed after this time.", unit="seconds", gt=0),
    ] = 120.0
    shutdown_timeout: Annotated[
        float, doc("The time for running requests to end at shutdown.", unit="seconds", ge=0)
    ] = 10.0
    cached_events: Annotated[
        int,
        doc(
            "Memory for events, as a number of events of 1.7 KB; fewer fit if they are larger.",
            unit="events",
            ge=1_000,
        ),
    ] = 20_000
    cached_state_nodes: Annotated[
        int,
        doc("Nodes of state trees in memory, about 400 bytes each.", unit="nodes", ge=1_000),
    ] = 40_000
    cached_room_state: Annotated[
        int,
        doc(
            "Memory for rooms, as a number of state events and members of 250 bytes. A room takes"
            " 6 KB besides, and its newest events.",
            unit="entries",
            ge=10_000,
        ),
    ] = 400_000
    cached_users: Annotated[
        int,
        doc(
            "Users whose rooms and latest changes are in memory, in twenty rooms each: more than"
            " sync at a time.",
            unit="users",
            ge=100,
        ),
    ] = 20_000


class WebSocketSettings(Section, frozen=True, kw_only=True):
    """Sync and requests over a WebSocket, at `/_matrix/client/v3/stream`."""

    enabled: Annotated[bool, doc("Offer the transport.")] = True
    max_per_user: Annotated[
        int, doc("The number of simultaneous sockets of one user.", unit="sockets", ge=1)
    ] = 50
    max_per_device: Annotated[
        int, doc("The number of simultaneous sockets of one device.", unit="sockets", ge=1)
    ] = 4
    max_frame: Annotated[
        int, doc("The largest frame that a client may send.", unit="bytes", ge=65_536)
    ] = 131_072
    ping_interval: Annotated[
        float,
        doc("Time between pings; two unanswered ones close the socket.", unit="seconds", gt=0),
    ] = 40.0
    ack_window: Annotated[
        int,
        doc(
            "Unacknowledged updates at once, for clients that acknowledge updates.",
            unit="updates",
            ge=1,
        ),
    ] = 4
    send_buffer: Annotated[
        int,
        doc("Unsent data after which updates wait and are compacted.", unit="bytes", ge=16_384),
    ] = 262_144
    query_token: Annotated[
        bool, doc("Accept the access token in the URL too, although it may appear in logs there.")
    ] = False
