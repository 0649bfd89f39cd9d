"""Telephone numbers as users write them, converted to the form of E.164.

A number in national form is valid only in its country: it may begin with a trunk prefix, which is
not dialled from other countries, or with a prefix for international calls. The rules of all
countries are the metadata of libphonenumber: an index of them (15 ms) is loaded with the first
number, and those of one country (1 to 10 ms) when a number of it is first parsed.

It is not checked whether a number is assigned: the assigned ranges change, and an account keeps its
number.

https://www.itu.int/rec/T-REC-E.164 (country codes), https://github.com/google/libphonenumber

Spec: https://spec.matrix.org/v1.19/client-server-api/#phone-number
"""

import re

from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_msisdn

_SEPARATORS = re.compile(r"[\s().\-/\u2010-\u2015]+")
# libphonenumber reads more than this: letters in place of digits, digits of other scripts,
# extensions, `tel:` URIs. No address of an account is written like that.
_DIALLED = re.compile(r"\+?[0-9]+")


def parse_phone_number(country: str, number: str) -> str:
    """The MSISDN of a number as the user entered it, dialled from `country` (ISO 3166-1 alpha-2).

    Raises `InvalidThirdPartyId`.
    """
    import phonenumbers  # most servers see no phone number

    region = country.upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidThirdPartyId("Unknown country")
    dialled = _SEPARATORS.sub("", number)
    if not _DIALLED.fullmatch(dialled):
        raise InvalidThirdPartyId("Not a telephone number")
    try:
        parsed = phonenumbers.parse(dialled, region)
    except phonenumbers.NumberParseException:
        raise InvalidThirdPartyId("Not a telephone number") from None
    return canonical_msisdn(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
