"""Claims: what an identity provider says of a user, and what accounts take from them.

OpenID Connect calls them claims, CAS attributes. A value is a text, a number, a boolean, or a list
of these; anything else is not used.

Spec: https://openid.net/specs/openid-connect-core-1_0.html#Claims
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_email

MAX_SUBJECT = 255  # bytes
MAX_NAME = 100  # characters of a display name
_PLACE = re.compile(r"\{([^{}]+)\}")
Claims = Mapping[str, Any]


class InvalidClaims(ValueError):
    """The claims do not identify a user. The message is for the user."""


class ClaimRules(msgspec.Struct, frozen=True):
    """The use that is made of claims: names of claims, templates, and requirements."""

    subject: str
    localpart: str | None
    display_name: str
    email: str | None
    required: tuple[str, ...]
    has_verified_emails: bool  # whether e-mail addresses count as verified without a claim

    @property
    def claims(self) -> set[str]:
        """The names of the claims that are used."""
        templates = (self.localpart or "", self.display_name, self.email or "")
        required = {each.partition("=")[0] for each in self.required}
        return {self.subject, *required, *_PLACE.findall("".join(templates))}


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user at a provider. `suggestion` is a name for their account, not checked yet."""

    subject: str
    suggestion: str | None = None
    is_mapped: bool = False  # whether the suggestion is the configured localpart
    display_name: str | None = None
    email: str | None = None


def fill_template(template: str, claims: Claims) -> str | None:
    """The template with the claims in place of their names; `None` if one is missing or empty."""
    values = {name: _text(claims.get(name)) for name in _PLACE.findall(template)}
    if not all(values.values()):
        return None
    return _PLACE.sub(lambda match: str(values[match[1]]), template).strip() or None


def meets(required: Iterable[str], claims: Claims) -> bool:
    """Whether the claims have all that is required: `name`, or `name=value`."""
    for each in required:
        name, has_value, value = each.partition("=")
        found = claims.get(name)
        texts = [_text(one) for one in (found if isinstance(found, list) else [found])]
        if not any(texts) or (has_value and value not in texts):
            return False
    return True


def identify(rules: ClaimRules, claims: Claims) -> Identity:
    """The identity that the claims describe. Raises `InvalidClaims`."""
    subject = _text(claims.get(rules.subject))
    if not subject or len(subject.encode()) > MAX_SUBJECT or "\0" in subject:
        raise InvalidClaims(f"The identity provider gives no valid `{rules.subject}` of you")
    if not meets(rules.required, claims):
        raise InvalidClaims("Your account at the identity provider may not use this server")
    mapped = fill_template(rules.localpart, claims) if rules.localpart else None
    if mapped is not None and len(mapped.encode()) > MAX_SUBJECT:
        mapped = None
    name = fill_template(rules.display_name, claims)
    return Identity(
        subject,
        suggestion=mapped or _suggestion(claims),
        is_mapped=mapped is not None,
        display_name=_clean(name)[:MAX_NAME] or None if name else None,
        email=_email(rules, claims),
    )


def _suggestion(claims: Claims) -> str | None:
    """A name that the user may like."""
    for name in ("preferred_username", "nickname", "email", "name"):
        if text := _text(claims.get(name)):
            return text.partition("@")[0][:MAX_NAME] or None
    return None


def _email(rules: ClaimRules, claims: Claims) -> str | None:
    if rules.email is None:
        return None
    if not rules.has_verified_emails and claims.get("email_verified") not in (True, "true"):
        return None
    try:
        return canonical_email(fill_template(rules.email, claims) or "")
    except InvalidThirdPartyId:
        return None


def _text(value: Any) -> str:
    """A value as text, "" if it is missing; of a list the first one."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return _well_formed(str(value))
    return ""


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _clean(text: str) -> str:
    """A name without control characters."""
    return "".join(character for character in text if character.isprintable())
