"""The program that makes thumbnails, in a process of its own, with the limits of `Limits`.

A picture is the most dangerous thing that a stranger can send: it may decode to gigabytes, or hit a
defect of a decoder. So it is decoded where that ends no more than this process. It is run as a
script (`worker_processes.py`), and imports nothing of this server.

Each line of the input is a job, a JSON object, and each line of the output its result:

    {"source": path, "target": path, "width": 320, "height": 240, "method": "scale",
     "is_animated": false}
    {"made": "image/jpeg"}       the thumbnail is at the target
    {"same": "image/jpeg"}       the picture itself is small enough
    {"error": "too_large"} or {"error": "unreadable"}
    {"error": "lost"}            there is no source
    {"error": "no_disk"}         the disk is full, or cannot be read

Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

import errno
import json
import resource
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image, ImageOps, features

FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP"})
ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSED = frozenset({5, 6, 7, 8})  # orientations that exchange width and height
MAX_FRAMES = 500
MAX_MOVING_PIXELS = 40_000_000  # of all frames of an animated thumbnail; some seconds of work
MAX_OUTPUT = 33_554_432  # bytes
MAX_PROFILE = 65_536  # bytes of a colour profile that is kept
SPARE = 1.25  # the decoded picture is at least that much larger than its thumbnail

Box = tuple[float, float, float, float]


class Limits(msgspec.Struct, frozen=True):
    """`pixels` of a decoded picture, bytes of `memory`, and `cpu_seconds` of one job."""

    pixels: int
    memory: int
    cpu_seconds: int


class PictureTooLarge(Exception):
    """The picture has more pixels than may be decoded."""


class Plan(msgspec.Struct, frozen=True):
    """The part of a picture that is shown, and the size to which it is reduced."""

    box: Box
    width: int
    height: int


def plan(size: tuple[int, int], width: int, height: int, method: str) -> Plan | None:
    """How to make a thumbnail of a picture of this size; `None` if the picture is not larger.

    Nothing is ever enlarged.
    """
    own_width, own_height = size
    if own_width <= width and own_height <= height:
        return None
    if method == "scale":
        factor = min(width / own_width, height / own_height)
        return Plan(
            (0, 0, own_width, own_height),
            max(1, round(own_width * factor)),
            max(1, round(own_height * factor)),
        )
    factor = min(own_width / width, own_height / height)
    shown_width, shown_height = width * factor, height * factor
    left, top = (own_width - shown_width) / 2, (own_height - shown_height) / 2
    reduction = max(factor, 1.0)
    return Plan(
        (left, top, left + shown_width, top + shown_height),
        max(1, round(shown_width / reduction)),
        max(1, round(shown_height / reduction)),
    )


def make(job: dict[str, Any], limits: Limits) -> dict[str, str]:
    """Do one job. Raises `PictureTooLarge`, or any error for a picture that cannot be read."""
    with Image.open(job["source"], formats=FORMATS) as image:
        name = image.format or ""
        orientation = _orientation(image)
        width, height = job["width"], job["height"]
        if orientation in TRANSPOSED:
            width, height = height, width
        wanted = plan(image.size, width, height, job["method"])
        is_animated = name in ANIMATED_FORMATS and bool(getattr(image, "is_animated", False))
        if wanted is None and (job["is_animated"] or not is_animated):
            return {"same": CONTENT_TYPES[name]}
        if wanted is None:
            wanted = Plan((0, 0, *image.size), *image.size)
        if is_animated and job["is_animated"] and _may_move(image, wanted, limits):
            return _save_animated(image, wanted, job["target"])
        return _save_still(image, wanted, orientation, job["target"], limits)


def _save_still(
    image: Image.Image, wanted: Plan, orientation: int, target: str, limits: Limits
) -> dict[str, str]:
    own = image.size
    shown = (wanted.box[2] - wanted.box[0], wanted.box[3] - wanted.box[1])
    # Only decoders of JPEG can decode to a smaller size; for all others this changes nothing.
    least = (
        int(own[0] * wanted.width * SPARE / shown[0]),
        int(own[1] * wanted.height * SPARE / shown[1]),
    )
    image.draft(None, least)
    _check_pixels(image, own, limits)
    box: Any = tuple(
        edge * image.size[number % 2] / own[number % 2] for number, edge in enumerate(wanted.box)
    )
    picture = _in_full_colour(image)
    profile = image.info.get("icc_profile") if picture.mode == image.mode else None
    small = picture.resize(
        (wanted.width, wanted.height), Image.Resampling.LANCZOS, box, reducing_gap=2.0
    )
    if orientation != 1:
        small.getexif()[ORIENTATION] = orientation
        ImageOps.exif_transpose(small, in_place=True)
    options: dict[str, Any] = {}
    if isinstance(profile, bytes) and len(profile) <= MAX_PROFILE:
        options["icc_profile"] = profile
    if small.mode == "RGBA":
        _save(small, target, "PNG", exif=b"", **options)
        return {"made": "image/png"}
    _save(small, target, "JPEG", quality=82, optimize=True, exif=b"", **options)
    return {"made": "image/jpeg"}


def _save_animated(image: Image.Image, wanted: Plan, target: str) -> dict[str, str]:
    frames, durations = [], []
    for number in range(min(image.n_frames, MAX_FRAMES)):  # type: ignore[attr-defined]
        image.seek(number)
        durations.append(max(20, int(image.info.get("duration") or 100)))
        frames.append(
            image.convert("RGBA").resize(
                (wanted.width, wanted.height), Image.Resampling.BILINEAR, wanted.box
            )
        )
    first, *others = frames
    loop = int(image.info.get("loop", 0) or 0)
    _save(
        first,
        target,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=durations,
        loop=loop,
        quality=75,
        method=2,
    )
    return {"made": "image/webp"}


def _save(picture: Image.Image, target: str, kind: str, **options: Any) -> None:
    """Encode a picture, and then write it: errors of encoders do not say that the disk is full."""
    encoded = BytesIO()
    picture.save(encoded, kind, **options)
    Path(target).write_bytes(encoded.getbuffer())


def _may_move(image: Image.Image, wanted: Plan, limits: Limits) -> bool:
    """Whether all frames can be decoded; of longer animations the first picture is shown."""
    frames = int(getattr(image, "n_frames", 1))
    pixels = image.size[0] * image.size[1]
    if wanted.width * wanted.height * frames > MAX_MOVING_PIXELS:
        return False
    return (
        bool(features.check("webp"))
        and frames <= MAX_FRAMES
        and pixels * 4 <= limits.pixels
        and pixels * frames <= limits.pixels * 4
    )


def _check_pixels(image: Image.Image, own: tuple[int, int], limits: Limits) -> None:
    is_jpeg = image.format in ("JPEG", "MPO")
    decoded = image.size[0] * image.size[1]
    # A progressive JPEG is in memory with all its coefficients, however small it is decoded.
    if decoded > limits.pixels or own[0] * own[1] > limits.pixels * (4 if is_jpeg else 1):
        raise PictureTooLarge


def _in_full_colour(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def answer(job: dict[str, Any], limits: Limits) -> dict[str, str]:
    """The result of one job, whatever the picture is."""
    try:
        return make(job, limits)
    except (PictureTooLarge, MemoryError, Image.DecompressionBombError):
        return {"error": "too_large"}
    except FileNotFoundError:
        return {"error": "lost"}
    except OSError as error:
        # Errors of decoders have no number.
        if error.errno is None:
            return {"error": "unreadable"}
        return {"error": "too_large" if error.errno == errno.EFBIG else "no_disk"}
    except Exception:
        # Decoders raise errors of many kinds for what is not a picture.
        return {"error": "unreadable"}


def _apply(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT, MAX_OUTPUT))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def _allow_cpu(seconds: int) -> None:
    """Have the system end this process if it needs more from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def main() -> None:
    """Answer jobs until the input ends."""
    limits = Limits(*map(int, sys.argv[1:4]))
    _apply(limits)
    Image.init()
    for line in sys.stdin:
        _allow_cpu(limits.cpu_seconds)
        print(json.dumps(answer(json.loads(line), limits)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
