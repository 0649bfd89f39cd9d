"""Every setting of the server: its type, default, unit and one sentence of documentation.

`Settings` is the whole of `homeserver.yaml`; each other class is one section of it. The reference
page (docs/configuration.md) and the sample file (homeserver.yaml) are generated from this module.
To add a setting, add a field here and run `make config-docs`.

A check that types and bounds cannot express is in `mistakes` of its section, which yields a
sentence for the operator. Paths in the file are relative to its folder.
"""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from homeserver.config.fields import Mistake, Section, doc
from homeserver.config.sections.accounts import (
    PasswordSettings,
    RecaptchaSettings,
    RegistrationSettings,
    TokenSettings,
)
from homeserver.config.sections.acme import (
    AcmeSettings,
    mistakes_of_acme,
    names_of_certificate,
)
from homeserver.config.sections.calls import (
    DelayedEventSettings,
    MatrixRtcSettings,
    TurnSettings,
)
from homeserver.config.sections.contact import EmailSettings, ThirdPartyIdSettings
from homeserver.config.sections.federation import FederationSettings
from homeserver.config.sections.limits import LimitSettings, RateLimitSettings, WebSocketSettings
from homeserver.config.sections.listeners import Listener
from homeserver.config.sections.media import MediaSettings
from homeserver.config.sections.oauth import OAuthSettings
from homeserver.config.sections.push import PushSettings
from homeserver.config.sections.retention import RetentionSettings
from homeserver.config.sections.search import SearchSettings
from homeserver.config.sections.single_sign_on import SingleSignOnSettings
from homeserver.config.sections.support import Support
from homeserver.config.sections.threads import ThreadSettings
from homeserver.config.sections.url_previews import UrlPreviewSettings
from homeserver.config.sections.user_directory import UserDirectorySettings
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION, find_room_version


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """The database. Without a `dsn` the server runs its own PostgreSQL in `data_dir`."""

    dsn: Annotated[
        str | None,
        doc(
            "Connection string of a PostgreSQL database, version 13 or later, encoding UTF8.",
            default="an embedded PostgreSQL under `data_dir`",
            example="postgresql://homeserver:password@/homeserver",
        ),
    ] = None
    pool_size: Annotated[
        int,
        doc(
            "The largest number of connections, beside one for the log and one for the lease.",
            unit="connections",
            ge=1,
        ),
    ] = 8
    prepared_statements: Annotated[
        bool, doc("Use prepared statements; set it to false behind PgBouncer in transaction mode.")
    ] = True
    statement_timeout: Annotated[
        float, doc("A statement that takes longer is cancelled.", unit="seconds", gt=0)
    ] = 60.0
    maintenance_hour: Annotated[
        int,
        doc(
            "Start of the three hours in which the server cleans up its database.",
            unit="hours after midnight UTC",
            former_name="night",
            ge=0,
            le=23,
        ),
    ] = 2


class OutboundHttpSettings(Section, frozen=True, kw_only=True):
    """Requests to other services, except homeservers."""

    verify_certificates: Annotated[
        bool, doc("Check the certificates of other services; set it to false in tests only.")
    ] = True
    allow_private_addresses: Annotated[
        bool,
        doc(
            "Also connect to private, loopback and link-local addresses. Clients can then make this"
            " server send requests to services that only it can reach."
        ),
    ] = False


class RoomSettings(Section, frozen=True, kw_only=True):
    """The defaults of new rooms."""

    default_version: Annotated[
        str, doc("Version of a room if its creator does not choose one.")
    ] = DEFAULT_ROOM_VERSION

    def mistakes(self) -> Iterator[Mistake]:
        if find_room_version(self.default_version) is None:
            yield Mistake(f"there is no room version {self.default_version!r}")


class RoomDirectorySettings(Section, frozen=True, kw_only=True):
    """The list of public rooms."""

    allow_publishing: Annotated[
        bool, doc("Allow any user to list a room; otherwise only administrators can.")
    ] = True
    public_without_login: Annotated[
        bool,
        doc("Show the list to users who are not logged in.", former_name="without_login"),
    ] = False
    over_federation: Annotated[bool, doc("Show the list to other servers.")] = False


class PresenceSettings(Section, frozen=True, kw_only=True):
    """The online status of users."""

    enabled: Annotated[bool, doc("Track and show presence.")] = True
    idle_after: Annotated[
        float, doc("An inactive user is shown as away after this time.", unit="seconds", gt=0)
    ] = 300.0
    offline_after: Annotated[
        float,
        doc(
            "A user without an open connection is shown as offline after this time.",
            unit="seconds",
            gt=0,
        ),
    ] = 30.0


class LogSettings(Section, frozen=True, kw_only=True):
    """The log of the server. SIGHUP reopens the file."""

    file: Annotated[
        Path | None,
        doc("File to append to.", default="standard error", example="/var/log/homeserver.log"),
    ] = None
    level: Annotated[
        Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"],
        doc("The lowest level that is written."),
    ] = "INFO"
    format: Annotated[
        Literal["text", "json"], doc("Readable lines, or one JSON object per line.")
    ] = "text"


class ServerNoticeSettings(Section, frozen=True, kw_only=True):
    """Messages of the server to its users, each user in a separate room."""

    user: Annotated[
        Annotated[str, msgspec.Meta(pattern="^[a-z0-9._=/+-]+$")] | None,
        doc(
            "Localpart of the account that sends them, which no user may have. Without one"
            " there are no notices.",
            default="none",
            example="notices",
        ),
    ] = None
    display_name: Annotated[str, doc("Display name of the new account.")] = "Server notices"
    room_name: Annotated[str, doc("Name of the rooms.")] = "Server notices"


class EncryptionSettings(Section, frozen=True, kw_only=True):
    """End-to-end encryption: what waits for devices that are not online."""

    to_device_days: Annotated[
        int,
        doc(
            "Messages to a device, such as keys of encrypted messages, are deleted if the device"
            " has not fetched them after this time.",
            unit="days",
            ge=1,
        ),
    ] = 365
    to_device_messages: Annotated[
        int,
        doc("Messages that may wait for one device; beyond it the oldest are deleted.", ge=1_000),
    ] = 100_000


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    unknown_keys: Annotated[
        Literal["refuse", "warn"],
        doc("The reaction to unknown keys: `refuse` to start, or `warn` in the log."),
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
            "Web address of this server for clients, as published in `/.well-known/matrix/client`;"
            " without it that is not served.",
            default="none",
            example="https://matrix.example.org",
        ),
    ] = None
    data_dir: Annotated[
        Path, doc("Directory for the server's own files, such as its embedded database.")
    ] = Path("data")
    signing_key_path: Annotated[
        Path,
        doc(
            "File with the key that signs this server's events, created at the first start.",
            default="`signing.key` in `data_dir`",
            example="data/signing.key",
        ),
    ] = Path()
    listeners: Annotated[
        tuple[Listener, ...],
        doc("The addresses and ports on which the server accepts connections.", min_length=1),
    ] = (Listener(port=8008),)
    acme: AcmeSettings = AcmeSettings()
    trusted_proxies: Annotated[
        tuple[str, ...],
        doc(
            "Addresses and networks of reverse proxies, which are trusted to name the client's"
            " address (`X-Forwarded-For`). A Unix socket is always trusted."
        ),
    ] = ("127.0.0.1", "::1")
    database: DatabaseSettings = DatabaseSettings()
    registration: RegistrationSettings = RegistrationSettings()
    recaptcha: RecaptchaSettings = RecaptchaSettings()
    passwords: PasswordSettings = PasswordSettings()
    tokens: TokenSettings = TokenSettings()
    single_sign_on: SingleSignOnSettings = SingleSignOnSettings()
    oauth: OAuthSettings = OAuthSettings()
    email: EmailSettings = EmailSettings()
    third_party_ids: ThirdPartyIdSettings = ThirdPartyIdSettings()
    rooms: RoomSettings = RoomSettings()
    room_directory: RoomDirectorySettings = RoomDirectorySettings()
    user_directory: UserDirectorySettings = UserDirectorySettings()
    presence: PresenceSettings = PresenceSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    appservices: Annotated[
        tuple[Path, ...],
        doc(
            "Registration files of application services, such as bridges. SIGHUP reads them again.",
            example="[/etc/mautrix-signal/registration.yaml]",
        ),
    ] = ()
    appservices_folder: Annotated[
        Path, doc("Folder whose YAML files are registrations, too; it need not exist.")
    ] = Path("appservices.d")
    media: MediaSettings = MediaSettings()
    turn: TurnSettings = TurnSettings()
    url_previews: UrlPreviewSettings = UrlPreviewSettings()
    retention: RetentionSettings = RetentionSettings()
    search: SearchSettings = SearchSettings()
    push: PushSettings = PushSettings()
    threads: ThreadSettings = ThreadSettings()
    delayed_events: DelayedEventSettings = DelayedEventSettings()
    matrix_rtc: MatrixRtcSettings = MatrixRtcSettings()
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
        """The directory of the embedded PostgreSQL, if there is no `database.dsn`."""
        return self.data_dir / "postgres"

    @property
    def acme_dir(self) -> Path:
        """The directory of the certificate that the server obtains by itself."""
        return self.data_dir / "acme"

    @property
    def acme_names(self) -> tuple[str, ...]:
        """The host names of the certificate that the server obtains by itself."""
        return names_of_certificate(self.acme, self.server_name, self.public_baseurl)

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
        if self.single_sign_on.providers and self.public_baseurl is None:
            yield Mistake(
                "single_sign_on: identity providers need public_baseurl",
                ("single_sign_on", "public_baseurl"),
            )
        if self.oauth.enabled and self.public_baseurl is None:
            yield Mistake(
                "oauth.enabled: clients need the public_baseurl", ("oauth", "public_baseurl")
            )
        yield from mistakes_of_acme(self.acme, self.listeners, self.acme_names)
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                yield Mistake(
                    f"trusted_proxies: {network!r} is neither an address nor a network",
                    ("trusted_proxies",),
                )
