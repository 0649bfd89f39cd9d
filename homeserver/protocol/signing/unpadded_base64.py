"""Unpadded Base64: the encoding of bytes (keys, hashes, signatures) in JSON.

Spec: https://spec.matrix.org/v1.19/appendices/#unpadded-base64
"""

from binascii import a2b_base64, b2a_base64

_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def encode_base64(data: bytes) -> str:
    """The standard alphabet, without `=`."""
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_url_safe(data: bytes) -> str:
    """The alphabet with `-` and `_`, which needs no escaping in a URL; without `=`.

    Spec: https://spec.matrix.org/v1.19/appendices/#url-safe-unpadded-base64
    """
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL_SAFE).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Bytes of a string in the standard alphabet, padded or not.

    Raises `ValueError` for any character outside the alphabet, white space included, and for an
    impossible length.
    """
    bare = text.rstrip("=")
    return a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
