"""Telephone numbers as users write them, converted to the form of E.164.

A number in national form is relative to a country: it may begin with a trunk prefix, which is not
dialled from other countries, or with an international prefix. Countries that share a numbering plan
share its rules.

https://www.itu.int/rec/T-REC-E.164 (country codes), https://www.itu.int/oth/T0202.aspx?parent=T0202
(national numbering plans)

Spec: https://spec.matrix.org/v1.19/client-server-api/#phone-number
"""

import re

from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_msisdn

# ISO 3166-1 countries by their country code.
COUNTRIES = {
    "1": "US CA AG AI AS BB BM BS DM DO GD GU JM KN KY LC MP MS PR SX TC TT VC VG VI",
    "20": "EG", "211": "SS", "212": "MA EH", "213": "DZ", "216": "TN", "218": "LY", "220": "GM",
    "221": "SN", "222": "MR", "223": "ML", "224": "GN", "225": "CI", "226": "BF", "227": "NE",
    "228": "TG", "229": "BJ", "230": "MU", "231": "LR", "232": "SL", "233": "GH", "234": "NG",
    "235": "TD", "236": "CF", "237": "CM", "238": "CV", "239": "ST", "240": "GQ", "241": "GA",
    "242": "CG", "243": "CD", "244": "AO", "245": "GW", "246": "IO", "247": "AC", "248": "SC",
    "249": "SD", "250": "RW", "251": "ET", "252": "SO", "253": "DJ", "254": "KE", "255": "TZ",
    "256": "UG", "257": "BI", "258": "MZ", "260": "ZM", "261": "MG", "262": "RE YT", "263": "ZW",
    "264": "NA", "265": "MW", "266": "LS", "267": "BW", "268": "SZ", "269": "KM", "27": "ZA",
    "290": "SH TA", "291": "ER", "297": "AW", "298": "FO", "299": "GL", "30": "GR", "31": "NL",
    "32": "BE", "33": "FR", "34": "ES", "350": "GI", "351": "PT", "352": "LU", "353": "IE",
    "354": "IS", "355": "AL", "356": "MT", "357": "CY", "358": "FI AX", "359": "BG", "36": "HU",
    "370": "LT", "371": "LV", "372": "EE", "373": "MD", "374": "AM", "375": "BY", "376": "AD",
    "377": "MC", "378": "SM", "380": "UA", "381": "RS", "382": "ME", "383": "XK", "385": "HR",
    "386": "SI", "387": "BA", "389": "MK", "39": "IT VA", "40": "RO", "41": "CH", "420": "CZ",
    "421": "SK", "423": "LI", "43": "AT", "44": "GB GG IM JE", "45": "DK", "46": "SE",
    "47": "NO SJ", "48": "PL", "49": "DE", "500": "FK", "501": "BZ", "502": "GT", "503": "SV",
    "504": "HN", "505": "NI", "506": "CR", "507": "PA", "508": "PM", "509": "HT", "51": "PE",
    "52": "MX", "53": "CU", "54": "AR", "55": "BR", "56": "CL", "57": "CO", "58": "VE",
    "590": "GP BL MF", "591": "BO", "592": "GY", "593": "EC", "594": "GF", "595": "PY",
    "596": "MQ", "597": "SR", "598": "UY", "599": "CW BQ", "60": "MY", "61": "AU CC CX",
    "62": "ID", "63": "PH", "64": "NZ", "65": "SG", "66": "TH", "670": "TL", "672": "NF",
    "673": "BN", "674": "NR", "675": "PG", "676": "TO", "677": "SB", "678": "VU", "679": "FJ",
    "680": "PW", "681": "WF", "682": "CK", "683": "NU", "685": "WS", "686": "KI", "687": "NC",
    "688": "TV", "689": "PF", "690": "TK", "691": "FM", "692": "MH", "7": "RU KZ", "81": "JP",
    "82": "KR", "84": "VN", "850": "KP", "852": "HK", "853": "MO", "855": "KH", "856": "LA",
    "86": "CN", "880": "BD", "886": "TW", "90": "TR", "91": "IN", "92": "PK", "93": "AF",
    "94": "LK", "95": "MM", "960": "MV", "961": "LB", "962": "JO", "963": "SY", "964": "IQ",
    "965": "KW", "966": "SA", "967": "YE", "968": "OM", "970": "PS", "971": "AE", "972": "IL",
    "973": "BH", "974": "QA", "975": "BT", "976": "MN", "977": "NP", "98": "IR", "992": "TJ",
    "993": "TM", "994": "AZ", "995": "GE", "996": "KG", "998": "UZ",
}  # fmt: skip
CALLING_CODES = {
    country: code for code, countries in COUNTRIES.items() for country in countries.split()
}

# Countries without a trunk prefix: a leading zero, if there is one, belongs to the number.
WITHOUT_TRUNK_PREFIX = (
    "30", "34", "39", "45", "47", "48", "52", "56", "65", "216", "220", "221", "222", "223",
    "224", "225", "226", "227", "228", "229", "230", "235", "236", "237", "238", "239", "240",
    "241", "242", "244", "245", "246", "247", "248", "253", "257", "258", "266", "267", "268",
    "269", "290", "297", "298", "299", "350", "351", "352", "354", "356", "357", "371", "372",
    "376", "378", "420", "500", "501", "502", "503", "504", "505", "506", "507", "509", "592",
    "597", "599", "670", "672", "673", "674", "675", "676", "677", "678", "679", "680", "681",
    "682", "683", "685", "687", "688", "689", "690", "691", "852", "853", "960", "965", "968",
    "973", "974", "975", "992", "998",
)  # fmt: skip
# The trunk prefix of national numbers, by country code, where it is not "0".
TRUNK_PREFIXES = dict.fromkeys(WITHOUT_TRUNK_PREFIX, "") | {
    "1": "1", "7": "8", "36": "06", "375": "80", "692": "1", "993": "8",
}  # fmt: skip
# The international prefix, by country code, where it is not "00".
INTERNATIONAL_PREFIXES = {
    "1": "011", "7": "810", "61": "0011", "81": "010", "375": "810", "852": "001", "855": "001",
    "65": "001", "82": "001", "53": "119", "62": "001", "66": "001", "886": "002", "993": "810",
    "976": "001", "234": "009", "238": "0", "680": "011", "685": "0", "692": "011",
    "992": "810", "254": "000", "255": "000", "256": "000", "592": "001",
}  # fmt: skip

_SEPARATORS = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]+")
_TRUNK_IN_BRACKETS = re.compile(r"\(0\)")


def parse_phone_number(country: str, number: str) -> str:
    """The MSISDN of a number as the user entered it, dialled from `country` (ISO 3166-1 alpha-2).

    Raises `InvalidThirdPartyId`.
    """
    code = CALLING_CODES.get(country.upper())
    if code is None:
        raise InvalidThirdPartyId("Unknown country")
    is_international = number.strip().startswith("+")
    if is_international:
        # "+44 (0)20 …" is written for callers inside and outside of the country.
        number = _TRUNK_IN_BRACKETS.sub("", number)
    digits = _SEPARATORS.sub("", number).removeprefix("+")
    if not digits.isascii() or not digits.isdigit():
        raise InvalidThirdPartyId("Not a telephone number")
    prefix = INTERNATIONAL_PREFIXES.get(code, "00")
    if is_international:
        return canonical_msisdn(digits)
    if digits.startswith(prefix):
        return canonical_msisdn(digits.removeprefix(prefix))
    return canonical_msisdn(code + digits.removeprefix(TRUNK_PREFIXES.get(code, "0")))
