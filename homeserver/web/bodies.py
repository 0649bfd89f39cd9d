"""JSON bodies of requests: decoding of bytes into typed values, or the specified error.

A body that is not JSON, or not UTF-8 throughout, is `M_NOT_JSON`; JSON of the wrong shape is
`M_BAD_JSON`, and the message says where. The `Content-Type` is ignored, since clients need not send
one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

import re
from typing import Any

import msgspec

from homeserver.protocol.errors import BadJson, NotJson
from homeserver.protocol.json_elements import NotJsonText, check_utf8

# In valid JSON a NUL can only be written as this escape; an even number of backslashes before the
# `u` means that the backslash itself is escaped.
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_ANY_DECODER = msgspec.json.Decoder()


def contains_nul(body: bytes) -> bool:
    """Whether any string of this JSON text contains a NUL, which PostgreSQL cannot store."""
    return b"\\u0000" in body and _NUL_ESCAPE.search(body) is not None


def check_no_nul(value: object) -> None:
    """Raise `BadJson` if a string anywhere in a decoded body contains a NUL.

    Opaque JSON, a `msgspec.Raw`, may contain any: it is stored as bytes.
    """
    try:
        _check_no_nul(value)
    except RecursionError:
        raise BadJson("The JSON is nested too deeply") from None


def _check_no_nul(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise BadJson("Strings may not contain NUL characters here")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check_no_nul(getattr(value, name))
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_no_nul(key)
            _check_no_nul(member)
    elif isinstance(value, list):
        for member in value:
            _check_no_nul(member)


def check_no_nul_in_names(params: msgspec.Struct) -> None:
    """Raise `BadJson` for a NUL in a member that is text, or a list of texts.

    These are names, which are stored as text. Free-form content is stored as bytes, and may contain
    any JSON.
    """
    for name in params.__struct_fields__:
        value = getattr(params, name)
        texts = value if isinstance(value, list) else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise BadJson(f"`{name}` may not contain NUL characters")


def decode_body(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """Decode a body. Raises `NotJson` or `BadJson`, with the place of the error in the message."""
    try:
        # The decoder does not check the parts that it skips.
        check_utf8(body)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # The decoder stops at the first wrong type: the rest may not be JSON at all.
        _check_json(body)
        raise BadJson(str(error)) from None
    except RecursionError:
        raise BadJson("The JSON is nested too deeply") from None
    except (msgspec.DecodeError, NotJsonText) as error:
        raise NotJson(f"The body is not JSON: {error}") from None


def _check_json(body: bytes) -> None:
    try:
        _ANY_DECODER.decode(body)
    except msgspec.ValidationError:
        return  # a number out of range: valid JSON, but not allowed here
    except RecursionError:
        return
    except msgspec.DecodeError as error:
        raise NotJson(f"The body is not JSON: {error}") from None
