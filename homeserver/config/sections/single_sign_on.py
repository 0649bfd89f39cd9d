"""Settings of single sign-on: the identity providers with which users can sign in.

Spec: https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from homeserver.config.errors import ConfigError
from homeserver.config.fields import Mistake, Section, doc

WebAddress = Annotated[str, msgspec.Meta(pattern="^https?://[^/]")] | None


class IdentityProviderSettings(Section, frozen=True, kw_only=True):
    """A service that authenticates users, by OpenID Connect or by CAS.

    Templates such as `{given_name} {family_name}` are filled with the claims, or attributes, that
    the provider has given of a user. One that names a missing claim gives nothing.
    """

    kind: Annotated[
        Literal["oidc", "cas"], doc("The protocol: OpenID Connect 1.0, or CAS 2.0 and 3.0.")
    ]
    id: Annotated[
        str,
        doc(
            "Id of the provider, which never changes: accounts are linked to it.",
            pattern="^[0-9A-Za-z._~-]{1,100}$",
        ),
    ]
    name: Annotated[str, doc("Name that users read.", min_length=1, max_length=255)]
    icon: Annotated[
        Annotated[str, msgspec.Meta(pattern="^mxc://[^/]+/[^/]+$")] | None,
        doc("Picture that clients show next to the name, an `mxc://` address.", default="none"),
    ] = None
    brand: Annotated[
        Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9._-]{0,254}$")] | None,
        doc(
            "Brand after which clients style the button, such as `google`, `github` or `gitlab`.",
            default="none",
        ),
    ] = None
    issuer: Annotated[
        WebAddress,
        doc(
            "oidc: the issuer, as in its tokens; the endpoints are found at"
            " `/.well-known/openid-configuration` below it.",
            default="none; required with `oidc`",
        ),
    ] = None
    client_id: Annotated[
        str | None,
        doc("oidc: the id of this server at the provider.", default="none; required with `oidc`"),
    ] = None
    client_secret: Annotated[
        str | None, doc("oidc: the secret of this server at the provider.", default="none")
    ] = None
    client_secret_file: Annotated[
        Path | None,
        doc("oidc: file with the secret.", default="none", example="/run/secrets/oidc"),
    ] = None
    token_endpoint_auth: Annotated[
        Literal["basic", "post"],
        doc("oidc: the place of the secret, the `Authorization` header or the body."),
    ] = "basic"
    scopes: Annotated[
        tuple[str, ...], doc("oidc: the scopes to request; `openid` must be one of them.")
    ] = ("openid", "profile", "email")
    authorization_endpoint: Annotated[
        WebAddress, doc("oidc: used in place of the discovered one.", default="discovered")
    ] = None
    token_endpoint: Annotated[
        WebAddress, doc("oidc: used in place of the discovered one.", default="discovered")
    ] = None
    userinfo_endpoint: Annotated[
        WebAddress, doc("oidc: used in place of the discovered one.", default="discovered")
    ] = None
    jwks_uri: Annotated[
        WebAddress, doc("oidc: used in place of the discovered one.", default="discovered")
    ] = None
    server_url: Annotated[
        WebAddress,
        doc("cas: the address below which `/login` is.", default="none; required with `cas`"),
    ] = None
    validate_path: Annotated[
        Literal["/p3/serviceValidate", "/serviceValidate"],
        doc(
            "cas: where tickets are validated. A server without the first, of CAS 3.0, is asked at"
            " the second, of CAS 2.0."
        ),
    ] = "/p3/serviceValidate"
    subject: Annotated[
        str,
        doc(
            "Claim that identifies a user permanently. With `cas` it is `user` unless an attribute"
            " is named.",
            min_length=1,
        ),
    ] = "sub"
    localpart: Annotated[
        str | None,
        doc(
            "Template of the name of a new account, such as `{preferred_username}`. Without one,"
            " the user chooses a name.",
            default="none; with `cas`, `{user}`",
        ),
    ] = None
    display_name: Annotated[
        str | None,
        doc("Template of the display name of a new account.", default="`{name}`"),
    ] = None
    email: Annotated[
        str | None,
        doc(
            "Template of the e-mail address of a new account, such as `{email}`. With `oidc` it is"
            " used if the provider says that it is verified.",
            default="none",
        ),
    ] = None
    required_attributes: Annotated[
        tuple[str, ...],
        doc(
            "Claims that a user must have, each as `name`, or as `name=value` for one of the"
            " values of a claim.",
            example="['groups=matrix']",
        ),
    ] = ()
    allow_new_users: Annotated[
        bool, doc("Create an account when somebody signs in for the first time.")
    ] = True
    allow_existing_users: Annotated[
        bool,
        doc(
            "Link somebody who signs in for the first time with the existing account of that"
            " `localpart`. Anybody who can choose their name at the provider could take over an"
            " account."
        ),
    ] = False

    def mistakes(self) -> Iterator[Mistake]:
        if self.kind == "cas":
            yield from self._mistakes_of_cas()
        else:
            yield from self._mistakes_of_oidc()
        if self.allow_existing_users and self.localpart_template is None:
            yield Mistake(
                "allow_existing_users needs a localpart", ("allow_existing_users", "localpart")
            )

    def _mistakes_of_cas(self) -> Iterator[Mistake]:
        if self.server_url is None:
            yield Mistake("server_url is missing, which `kind: cas` needs", ("server_url",))

    def _mistakes_of_oidc(self) -> Iterator[Mistake]:
        for name in ("issuer", "client_id"):
            if getattr(self, name) is None:
                yield Mistake(f"{name} is missing, which `kind: oidc` needs", (name,))
        if self.client_secret is not None and self.client_secret_file is not None:
            yield Mistake(
                "give client_secret or client_secret_file, not both",
                ("client_secret", "client_secret_file"),
            )
        if "openid" not in self.scopes:
            yield Mistake("scopes: `openid` is missing", ("scopes",))

    @property
    def localpart_template(self) -> str | None:
        """The template of the name of a new account."""
        return self.localpart or ("{user}" if self.kind == "cas" else None)

    @property
    def display_name_template(self) -> str:
        """The template of the display name of a new account."""
        return self.display_name or "{name}"

    @property
    def subject_claim(self) -> str:
        """The claim that identifies a user."""
        return "user" if self.kind == "cas" and self.subject == "sub" else self.subject

    def secret(self) -> str | None:
        """The client secret. Raises `ConfigError` if its file cannot be read."""
        if self.client_secret_file is None:
            return self.client_secret
        file = self.client_secret_file
        try:
            return file.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"single_sign_on: cannot read {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"single_sign_on: {file} is not UTF-8 text") from None


class SingleSignOnSettings(Section, frozen=True, kw_only=True):
    """Single sign-on: users sign in at an identity provider of the organisation, or a public one.

    See [single-sign-on.md](single-sign-on.md).
    """

    providers: Annotated[
        tuple[IdentityProviderSettings, ...],
        doc(
            "The identity providers, in the order in which clients show them.",
            example="[{kind: oidc, id: example, name: Example, issuer: 'https://id.example.org',"
            " client_id: matrix, client_secret: '...'}]",
        ),
    ] = ()
    trusted_clients: Annotated[
        tuple[str, ...],
        doc(
            "Web addresses of clients that users return to without confirmation, with all that is"
            " below them.",
            example="['https://app.element.io/']",
        ),
    ] = ()

    def mistakes(self) -> Iterator[Mistake]:
        ids = [provider.id for provider in self.providers]
        if len(ids) != len(set(ids)):
            yield Mistake("single_sign_on.providers: two have the same id", ("providers",))
        for client in self.trusted_clients:
            if not urlsplit(client).scheme:
                yield Mistake(
                    f"single_sign_on.trusted_clients: {client!r} is not an address",
                    ("trusted_clients",),
                )
