"""Settings of accounts: registration, reCAPTCHA, passwords and tokens."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from homeserver.config.fields import Mistake, Section, doc


class PolicySettings(Section, frozen=True, kw_only=True):
    """A document that a user must accept to register."""

    id: Annotated[str, doc("Name of the policy, such as `privacy_policy`.")]
    version: Annotated[str, doc("Version of the document.")]
    name: Annotated[str, doc("Title that the user reads.")]
    url: Annotated[str, doc("Web address of the document.")]
    language: Annotated[str, doc("Language of the document.")] = "en"


class RegistrationSettings(Section, frozen=True, kw_only=True):
    """Registration of accounts by users."""

    enabled: Annotated[
        bool,
        doc(
            "Allow users to register. If false, only `homeserver user add` and the shared secret"
            " can."
        ),
    ] = False
    guests: Annotated[bool, doc("Allow guests, who have no name and no password.")] = False
    token_required: Annotated[
        bool,
        doc(
            "Require a registration token, which an administrator issues with"
            " `homeserver registration-token add`."
        ),
    ] = False
    recaptcha_required: Annotated[
        bool, doc("Require a solved reCAPTCHA, as `recaptcha` configures it.")
    ] = False
    email_required: Annotated[
        bool, doc("Require an e-mail address, which is validated by a mail to it.")
    ] = False
    localpart_as_display_name: Annotated[
        bool,
        doc(
            "Give each new account, except guests, its localpart as display name. If false, it has"
            " none until its user chooses one."
        ),
    ] = True
    shared_secret: Annotated[
        Annotated[str, msgspec.Meta(min_length=8)] | None,
        doc(
            "Clients that know this secret may register any user, even administrators, at"
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
    """Google reCAPTCHA, with which users prove that they are not programs."""

    verify_url: Annotated[
        str, doc("The web address for checking a solution.", pattern="^https?://")
    ] = "https://www.google.com/recaptcha/api/siteverify"
    public_key: Annotated[
        str | None, doc("The site key, with which clients show the puzzle.", default="none")
    ] = None
    private_key: Annotated[
        str | None, doc("The secret key, with which solutions are checked.", default="none")
    ] = None

    def mistakes(self) -> Iterator[Mistake]:
        if (self.public_key is None) != (self.private_key is None):
            yield Mistake(
                "recaptcha needs both a public_key and a private_key, or neither",
                ("public_key", "private_key"),
            )


class PasswordSettings(Section, frozen=True, kw_only=True):
    """Log-in by password."""

    enabled: Annotated[bool, doc("Offer log-in by password.")] = True
    minimum_length: Annotated[
        int, doc("The minimum length of a new password.", unit="characters", ge=1)
    ] = 8
    hash_cost: Annotated[
        Literal["normal", "lowest"],
        doc("The cost of guessing from a stolen hash; `lowest` is for tests, without protection."),
    ] = "normal"


class TokenSettings(Section, frozen=True, kw_only=True):
    """The lifetimes of tokens."""

    access_token_lifetime: Annotated[
        int,
        doc("Lifetime of an access token of a client that can refresh it.", unit="seconds", ge=1),
    ] = 3600
    refresh_token_lifetime: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        doc(
            "Lifetime of an unused refresh token; the device is logged out after it.",
            unit="seconds",
            default="unlimited",
            example="7776000",
        ),
    ] = None
    login_token_lifetime: Annotated[
        int, doc("Lifetime of a token for logging in another device.", unit="seconds", ge=1)
    ] = 120
