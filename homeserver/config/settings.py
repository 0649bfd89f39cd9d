"""Every setting of the server: its type, default, unit and one sentence of documentation.

`Settings` is the whole of `homeserver.yaml`; each other class is one section of it. The reference
page (docs/configuration.md) and the sample file (homeserver.yaml) are generated from this module.
To add a setting, add a field here and run `make config-docs`.

A check that types and bounds cannot express stands in `mistakes` of its section, which gives a
sentence for the person who wrote the file. Paths in the file are relative to its folder.
"""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from homeserver.config.contact import EmailSettings, ThirdPartyIdSettings
from homeserver.config.federation import FederationSettings
from homeserver.config.fields import Mistake, Section, doc
from homeserver.config.limits import LimitSettings, RateLimitSettings, WebSocketSettings
from homeserver.config.listeners import Listener
from homeserver.config.support import Support
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION, find_room_version


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """Where data is kept. Without a `dsn` the server runs a PostgreSQL of its own in `data_dir`."""

    dsn: Annotated[
        str | None,
        doc(
            "Connection string of a PostgreSQL database, version 13 or later, encoding UTF8.",
            default="an embedded PostgreSQL under `data_dir`",
            example="postgresql://homeserver:password@/homeserver",
        ),
    ] = None
    pool_size: Annotated[int, doc("Connections to open at most.", unit="connections", ge=1)] = 8
    prepared_statements: Annotated[
        bool, doc("Use prepared statements; say false behind PgBouncer in transaction mode.")
    ] = True
    statement_timeout: Annotated[
        float, doc("A statement that takes longer is cancelled.", unit="seconds", gt=0)
    ] = 60.0
    maintenance_hour: Annotated[
        int,
        doc(
            "Hour in which the three hours begin when the server tidies up its database.",
            unit="hours after midnight UTC",
            former_name="night",
            ge=0,
            le=23,
        ),
    ] = 2


class PolicySettings(Section, frozen=True, kw_only=True):
    """A document that a user must accept to register."""

    id: Annotated[str, doc("Name of the policy, such as `privacy_policy`.")]
    version: Annotated[str, doc("Version of the document.")]
    name: Annotated[str, doc("Title that the user reads.")]
    url: Annotated[str, doc("Where the document can be read.")]
    language: Annotated[str, doc("Language of the document.")] = "en"


class RegistrationSettings(Section, frozen=True, kw_only=True):
    """Who may make an account."""

    enabled: Annotated[
        bool,
        doc(
            "Let people register. When false, `homeserver user add` and the shared secret still do."
        ),
    ] = False
    guests: Annotated[bool, doc("Let guests in, who have no name and no password.")] = False
    token_required: Annotated[
        bool, doc("Ask for a registration token, which an administrator gives out.")
    ] = False
    recaptcha_required: Annotated[
        bool, doc("Ask for a solved reCAPTCHA, as `recaptcha` configures it.")
    ] = False
    email_required: Annotated[
        bool, doc("Ask for an e-mail address, which is validated by a mail to it.")
    ] = False
    localpart_as_display_name: Annotated[
        bool,
        doc(
            "Give each new account, guests aside, its localpart as display name. When false, it has"
            " none until its user chooses one."
        ),
    ] = True
    shared_secret: Annotated[
        Annotated[str, msgspec.Meta(min_length=8)] | None,
        doc(
            "Whoever knows this may register anyone, administrators too, at"
            " `/_synapse/admin/v1/register`. Long and random, or absent.",
            default="none",
            example='"a long random string"',
        ),
    ] = None
    terms: Annotated[
        tuple[PolicySettings, ...],
        doc(
            "Policies to accept at registration, in this order.",
            example="[{id: privacy, version: '1', name: Privacy, url: 'https://example.org/privacy'}]",
        ),
    ] = ()


class RecaptchaSettings(Section, frozen=True, kw_only=True):
    """Google reCAPTCHA, by which people prove that they are no programs."""

    verify_url: Annotated[str, doc("Where a solution is checked.", pattern="^https?://")] = (
        "https://www.google.com/recaptcha/api/siteverify"
    )
    public_key: Annotated[
        str | None, doc("The site key, which clients show the puzzle with.", default="none")
    ] = None
    private_key: Annotated[
        str | None, doc("The secret key, which solutions are checked with.", default="none")
    ] = None

    def mistakes(self) -> Iterator[Mistake]:
        if (self.public_key is None) != (self.private_key is None):
            yield Mistake(
                "recaptcha needs both a public_key and a private_key, or neither",
                ("public_key", "private_key"),
            )


class OutboundHttpSettings(Section, frozen=True, kw_only=True):
    """Requests that the server makes to others, those to other homeservers aside."""

    verify_certificates: Annotated[
        bool, doc("Check the certificates of others; say false in tests only.")
    ] = True
    allow_private_addresses: Annotated[
        bool,
        doc(
            "Connect to private, loopback and link-local addresses too. Clients can then make this"
            " server ask services that only it can reach."
        ),
    ] = False


class PasswordSettings(Section, frozen=True, kw_only=True):
    """Log-in by password."""

    enabled: Annotated[bool, doc("Offer log-in by password.")] = True
    minimum_length: Annotated[
        int, doc("Shortest new password that is accepted.", unit="characters", ge=1)
    ] = 8
    hash_cost: Annotated[
        Literal["normal", "lowest"],
        doc(
            "Work that guessing from a stolen hash costs; `lowest` is for tests, it protects none."
        ),
    ] = "normal"


class TokenSettings(Section, frozen=True, kw_only=True):
    """How long tokens are valid."""

    access_token_lifetime: Annotated[
        int,
        doc("Life of an access token of a client that can refresh it.", unit="seconds", ge=1),
    ] = 3600
    refresh_token_lifetime: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        doc(
            "Life of an unused refresh token; the device is logged out after it.",
            unit="seconds",
            default="for ever",
            example="7776000",
        ),
    ] = None
    login_token_lifetime: Annotated[
        int, doc("Life of a token for logging in another device.", unit="seconds", ge=1)
    ] = 120


class RoomSettings(Section, frozen=True, kw_only=True):
    """What rooms are made like."""

    default_version: Annotated[
        str, doc("Version of a room that is created without naming one.")
    ] = DEFAULT_ROOM_VERSION

    def mistakes(self) -> Iterator[Mistake]:
        if find_room_version(self.default_version) is None:
            yield Mistake(f"there is no room version {self.default_version!r}")


class RoomDirectorySettings(Section, frozen=True, kw_only=True):
    """The list of public rooms."""

    allow_publishing: Annotated[
        bool, doc("Let any user list a room; else only administrators.")
    ] = True
    public_without_login: Annotated[
        bool,
        doc("Show the list to people who are not logged in.", former_name="without_login"),
    ] = False
    over_federation: Annotated[bool, doc("Show the list to other servers.")] = False


class PresenceSettings(Section, frozen=True, kw_only=True):
    """Who is online."""

    enabled: Annotated[bool, doc("Keep and show presence.")] = True
    idle_after: Annotated[
        float, doc("A user who does nothing is shown as away after this.", unit="seconds", gt=0)
    ] = 300.0
    offline_after: Annotated[
        float,
        doc(
            "A user without an open connection is shown as offline after this.",
            unit="seconds",
            gt=0,
        ),
    ] = 30.0


class LogSettings(Section, frozen=True, kw_only=True):
    """What the server writes about its work. SIGHUP opens the file again."""

    file: Annotated[
        Path | None,
        doc("File to append to.", default="standard error", example="/var/log/homeserver.log"),
    ] = None
    level: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"], doc("Least level that is written.")
    ] = "INFO"
    format: Annotated[
        Literal["text", "json"], doc("Lines for people, or one JSON object a line.")
    ] = "text"


class ServerNoticeSettings(Section, frozen=True, kw_only=True):
    """Messages of the server itself to its users, each in a room of their own."""

    user: Annotated[
        Annotated[str, msgspec.Meta(pattern="^[a-z0-9._=/+-]+$")] | None,
        doc(
            "Localpart of the account that sends them, which must not be anybody's. Without one"
            " there are no notices.",
            default="none",
            example="notices",
        ),
    ] = None
    display_name: Annotated[str, doc("What the account is called when it is made.")] = (
        "Server notices"
    )
    room_name: Annotated[str, doc("What the rooms are called.")] = "Server notices"


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    unknown_keys: Annotated[
        Literal["refuse", "warn"],
        doc("What a key that the server does not know leads to: no start, or a warning."),
    ] = "refuse"
    server_name: Annotated[
        str,
        doc(
            "Name of the server: the part after the colon in `@user:example.org`. Choose it with"
            " care, as it cannot be changed later."
        ),
    ] = "localhost"
    public_baseurl: Annotated[
        Annotated[str, msgspec.Meta(pattern="^https?://")] | None,
        doc(
            "Where clients reach this server, as `/.well-known/matrix/client` tells them; it is not"
            " served without this.",
            default="none",
            example="https://matrix.example.org",
        ),
    ] = None
    data_dir: Annotated[
        Path, doc("Folder of what the server keeps by itself, such as its embedded database.")
    ] = Path("data")
    signing_key_path: Annotated[
        Path,
        doc(
            "The key that proves events to be from this server, made at the first start.",
            default="`signing.key` in `data_dir`",
            example="data/signing.key",
        ),
    ] = Path()
    listeners: Annotated[
        tuple[Listener, ...], doc("Where the server accepts connections.", min_length=1)
    ] = (Listener(port=8008),)
    trusted_proxies: Annotated[
        tuple[str, ...],
        doc(
            "Addresses and networks of reverse proxies, which are believed when they say for whom"
            " they ask (`X-Forwarded-For`). A Unix socket is always believed."
        ),
    ] = ("127.0.0.1", "::1")
    database: DatabaseSettings = DatabaseSettings()
    registration: RegistrationSettings = RegistrationSettings()
    recaptcha: RecaptchaSettings = RecaptchaSettings()
    passwords: PasswordSettings = PasswordSettings()
    tokens: TokenSettings = TokenSettings()
    email: EmailSettings = EmailSettings()
    third_party_ids: ThirdPartyIdSettings = ThirdPartyIdSettings()
    rooms: RoomSettings = RoomSettings()
    room_directory: RoomDirectorySettings = RoomDirectorySettings()
    presence: PresenceSettings = PresenceSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    limits: LimitSettings = LimitSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    federation: FederationSettings = FederationSettings()
    outbound_http: OutboundHttpSettings = OutboundHttpSettings()
    support: Support = Support()
    server_notices: ServerNoticeSettings = ServerNoticeSettings()
    log: LogSettings = LogSettings()

    @property
    def postgres_dir(self) -> Path:
        """Where the embedded PostgreSQL lives, if there is no `database.dsn`."""
        return self.data_dir / "postgres"

    def __post_init__(self) -> None:
        if self.signing_key_path == Path():
            msgspec.structs.force_setattr(self, "signing_key_path", self.data_dir / "signing.key")
        super().__post_init__()

    def mistakes(self) -> Iterator[Mistake]:
        if not is_valid_server_name(self.server_name):
            yield Mistake(
                f"server_name: {self.server_name!r} is not a server name", ("server_name",)
            )
        if self.registration.recaptcha_required and self.recaptcha.private_key is None:
            yield Mistake(
                "registration.recaptcha_required: recaptcha has no keys",
                ("registration", "recaptcha"),
            )
        if self.registration.email_required and not self.email.enabled:
            yield Mistake(
                "registration.email_required: email has no smtp_host", ("registration", "email")
            )
        if self.email.enabled and self.public_baseurl is None:
            yield Mistake("email: links in mails need public_baseurl", ("email", "public_baseurl"))
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                yield Mistake(
                    f"trusted_proxies: {network!r} is neither an address nor a network",
                    ("trusted_proxies",),
                )
