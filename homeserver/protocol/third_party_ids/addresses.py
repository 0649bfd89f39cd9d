"""Third-party identifiers: e-mail addresses and telephone numbers, in their one canonical form.

An identifier is a pair of `medium` and `address`. Two spellings that reach the same mailbox must
become the same address, or one mailbox could have two accounts. Mail goes to the canonical address,
not to the one that was typed: case folding merges two addresses that may belong to two people (`ß`
and `ss`), and mail to the other one would hand over an account.

Spec: https://spec.matrix.org/v1.19/appendices/#3pid-types
"""

import re

EMAIL = "email"
MSISDN = "msisdn"

MAX_ADDRESS = 254  # bytes of an e-mail address, RFC 5321
MAX_LOCALPART = 64
MAX_LABEL = 63
MIN_DIGITS = 7
MAX_DIGITS = 15  # E.164
MAX_OPAQUE = 255

# The characters of an address outside of quotes (RFC 5322, `atext` and dots), and any visible ones
# beyond ASCII. Only attackers use quoted local parts.
_LOCALPART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.\-\u00a1-\U0010ffff]+")
_LABEL = re.compile(r"(?!-)[a-z0-9\-\u00a1-\U0010ffff]+(?<!-)")
_OPAQUE = re.compile(r"[0-9a-zA-Z.=_\-]+")
_DIGITS = re.compile(r"[1-9][0-9]+")


class InvalidThirdPartyId(ValueError):
    """A text that is not an address of its medium."""


def canonical_address(medium: str, address: str) -> str:
    """The canonical form of an address of a medium. Raises `InvalidThirdPartyId`."""
    if medium == EMAIL:
        return canonical_email(address)
    if medium == MSISDN:
        return canonical_msisdn(address)
    raise InvalidThirdPartyId("Unknown medium")


def canonical_email(address: str) -> str:
    """An e-mail address, case folded. Raises `InvalidThirdPartyId`.

    Spec: https://spec.matrix.org/v1.19/appendices/#e-mail
    """
    folded = address.strip().casefold()
    localpart, at, domain = folded.rpartition("@")
    if not at or not folded.isprintable() or any(map(str.isspace, folded)):
        raise InvalidThirdPartyId("Not an e-mail address")
    try:
        length = len(folded.encode())
    except UnicodeEncodeError:
        raise InvalidThirdPartyId("Not an e-mail address") from None
    if length > MAX_ADDRESS or len(localpart.encode()) > MAX_LOCALPART:
        raise InvalidThirdPartyId("The e-mail address is too long")
    dots_are_well = "" not in localpart.split(".")
    if not _LOCALPART.fullmatch(localpart) or not dots_are_well:
        raise InvalidThirdPartyId("Not an e-mail address")
    for label in domain.split("."):
        if not _LABEL.fullmatch(label) or len(label) > MAX_LABEL:
            raise InvalidThirdPartyId("Not an e-mail address")
    return folded


def canonical_msisdn(address: str) -> str:
    """A telephone number in the form of E.164, without the plus. Raises `InvalidThirdPartyId`.

    Spec: https://spec.matrix.org/v1.19/appendices/#pstn-phone-numbers
    """
    digits = address.strip().removeprefix("+")
    if not _DIGITS.fullmatch(digits) or not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        raise InvalidThirdPartyId("Not an international telephone number")
    return digits


def is_opaque_id(text: str) -> bool:
    """Whether a text may be a `client_secret` or a `sid`."""
    return len(text) <= MAX_OPAQUE and _OPAQUE.fullmatch(text) is not None
