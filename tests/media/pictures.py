"""Pictures for tests, made on the spot."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)
BLOCK = 1 << 20  # bytes


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture.convert(mode)


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def rotated(width: int, height: int, orientation: int) -> bytes:
    """A JPEG that is to be shown rotated or mirrored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(halves(width, height), "JPEG", exif=exif)


def animation(kind: str, frames: int = 4, width: int = 400, height: int = 300) -> bytes:
    """An animated picture, all of whose frames differ."""
    pictures = [
        Image.new("RGB", (width, height), (6 * number, 255 - 6 * number, 128))
        for number in range(frames)
    ]
    return encode(
        pictures[0], kind, save_all=True, append_images=pictures[1:], duration=100, loop=0
    )


def decode(content: bytes) -> Image.Image:
    """The picture in a file."""
    picture = Image.open(BytesIO(content))
    picture.load()
    return picture


def bomb(width: int, height: int) -> bytes:
    """A small PNG of one colour that decodes to `width * height` pixels.

    It is made in a moment, too: its bytes are all zero, so one compressed block is repeated.
    """
    size = height * (1 + width * 3)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = compressor.compress(bytes(BLOCK)) + compressor.flush(zlib.Z_FULL_FLUSH)
    rest = compressor.compress(bytes(size % BLOCK)) + compressor.flush()
    checksum = ((size % 65_521) << 16 | 1).to_bytes(4, "big")  # Adler-32 of as many zeros
    data = b"\x78\xda" + block * (size // BLOCK) + rest + checksum
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
