"""The `X-Matrix` scheme: signatures of requests between servers, and their header.

The signature covers a JSON object of the method, the path with its query, both servers' names, and
the body if there is one. The header has the sender, the receiver, the key id and the signature.

Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import re
from typing import Any

import msgspec

from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.unpadded_base64 import encode_base64

SCHEME = "x-matrix"

# RFC 9110, section 11.2: name, "=", and a token or a quoted string. Unquoted values may be more
# than a token: colons, as the specification requires, and other characters of Base64 and IPv6
# addresses.
_PARAMETER = re.compile(
    r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+) [ \t]*=[ \t]* (?: "((?:[^"\\]|\\.)*)" | ([^\s",\\]+) )""",
    re.VERBOSE,
)
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+")
_ESCAPE = re.compile(r"\\(.)")


class InvalidAuthorization(ValueError):
    """The header is not one of the scheme `X-Matrix`, or lacks a parameter."""


class Authorization(msgspec.Struct, frozen=True):
    """The content of a header; old servers leave out `destination`."""

    origin: str
    destination: str | None
    key_id: str
    signature: str

    def __str__(self) -> str:
        """The header, in a form that servers of all versions read."""
        names = {
            "origin": self.origin,
            "destination": self.destination,
            "key": self.key_id,
            "sig": self.signature,
        }
        parameters = (f'{name}="{value}"' for name, value in names.items() if value is not None)
        return "X-Matrix " + ",".join(parameters)


def parse_authorization(header: str) -> Authorization:
    """The content of an `Authorization` header. Raises `InvalidAuthorization`.

    Neither the names nor the signature are checked.
    """
    scheme, _, text = header.strip(" \t").partition(" ")
    if scheme.lower() != SCHEME:
        raise InvalidAuthorization("the Authorization header is not of the scheme X-Matrix")
    parameters = _parse_parameters(text.strip(" \t"))
    # The specification's list of parameters has `signature`; its examples, and all servers, say
    # `sig`.
    if "signature" in parameters:
        parameters.setdefault("sig", parameters["signature"])
    for name in ("origin", "key", "sig"):
        if name not in parameters:
            raise InvalidAuthorization(f"the Authorization header has no parameter {name}")
    return Authorization(
        parameters["origin"], parameters.get("destination"), parameters["key"], parameters["sig"]
    )


def request_object(
    method: str, uri: str, origin: str, destination: str | None, content: Any = None
) -> dict[str, Any]:
    """The signed object of a request. `uri` is path and query; `content` may be `None`."""
    signed = {"method": method, "uri": uri, "origin": origin}
    if destination is not None:
        signed["destination"] = destination
    return signed if content is None else {**signed, "content": content}


def authorize(
    method: str, uri: str, origin: str, destination: str, content: bytes | None, key: SigningKey
) -> Authorization:
    """Sign a request whose body is `content`: canonical JSON, which is not encoded again."""
    signed = encode_canonical(request_object(method, uri, origin, destination))
    if content is not None:
        # `content` is the first member in canonical JSON.
        signed = b'{"content":' + content + b"," + signed[1:]
    return Authorization(origin, destination, key.key_id, encode_base64(key.sign(signed)))


def _parse_parameters(text: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    position = _skip(text, 0)
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise InvalidAuthorization("the Authorization header is malformed")
        name, quoted, plain = match.groups()
        value = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
        if name.lower() in parameters:
            raise InvalidAuthorization(f"the Authorization header has {name} twice")
        parameters[name.lower()] = value
        position = _skip(text, match.end())
        if position == match.end() != len(text):
            raise InvalidAuthorization("the Authorization header is malformed")
    return parameters


def _skip(text: str, position: int) -> int:
    """The position of the next parameter: after one or more commas and the space around them."""
    match = _SEPARATOR.match(text, position)
    return match.end() if match else position
