"""The program that reads pages of strangers, in a process of its own, within `ParserLimits`.

libxml2 is fast, and reads what is not HTML at all; but one element with 200,000 attributes takes it
minutes, and nothing can end a thread. So it runs where both memory and time end no more than this
process. It is run as a script (`worker_processes.py`), and imports nothing of this server.

Each line of the input is a job, a JSON object, and each line of the output its result. The bytes of
a page, or of a response of oEmbed, follow the line:

    {"page": size in bytes, "charset": text, "url": text}
        {"preview": {…}, "image": URL, "oembed": URL}    what the page says; URLs may be empty
    {"oembed": size in bytes, "url": text}
        {"preview": {…}, "image": URL}
    {"picture": path}
        {"type": "image/png", "width": 640, "height": 480}
    {"error": text}                                      instead of any of these

A preview has properties of OpenGraph, as strings and integers, without those of the image.

Spec: https://ogp.me/, https://oembed.com/
"""

import codecs
import json
import re
import resource
import sys
from collections.abc import Iterable
from typing import Any
from unicodedata import category
from urllib.parse import urljoin, urlsplit

import msgspec
from lxml import etree
from PIL import Image

MAX_PROPERTIES = 50
MAX_TEXT = 1_000  # characters of a value
MAX_TITLE = 300
MAX_URL = 2_048
MAX_PREVIEW = 8_192  # characters of all names and values together
MAX_ELEMENTS = 20_000  # that are looked at
ENOUGH_TEXT = 300  # characters of paragraphs that describe a page
LEAST_PIXELS = 100  # width and height of a picture that is no icon
META_WITHIN = 4_096  # bytes in which a page names its character set

PROPERTY = re.compile(r"(?:og|article|book|profile|music|video):[a-z0-9_:]{1,60}")
URL_PROPERTY = re.compile(r"og:(?:url|(?:video|audio)(?::url|:secure_url)?)")
CHARSET = re.compile(rb"""charset\s{0,9}=\s{0,9}["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # one with several pictures
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
# Names that the Encoding Standard knows; other codecs of Python are slow, or no character sets.
ENCODINGS = frozenset(
    codecs.lookup(name).name
    for name in (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be"),
        *(f"iso8859-{number}" for number in (*range(2, 9), 10, *range(13, 17))),
        *(f"cp{number}" for number in (866, 874, *range(1250, 1259))),
        *("koi8-r", "koi8-u", "mac-roman", "gbk", "gb2312", "gb18030", "big5"),
        *("euc-jp", "iso2022_jp", "shift_jis", "euc-kr"),
    )
)
# Parts of a page that do not say what it is about.
ASIDE = (
    *("aside", "footer", "nav", "noscript", "script", "style", "svg", "template"),
    *("button", "form", "select", "textarea", "frameset", "iframe", "object"),
)
LOOKED_AT = ("base", "meta", "link", "title", "h1", "h2", "h3", "p", "img")
IMAGES = ("og:image:secure_url", "og:image:url", "og:image", "twitter:image", "twitter:image:src")
UNSHOWN = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change directions

Preview = dict[str, str | int]


class ParserLimits(msgspec.Struct, frozen=True):
    """`pixels` of a picture, bytes of `memory`, and `cpu_seconds` of one job."""

    pixels: int
    memory: int
    cpu_seconds: int


class _Page(msgspec.Struct):
    """What was found in a page, the first of each."""

    base: str
    # Those of `meta`, by lower-case name.
    properties: dict[str, str] = msgspec.field(default_factory=dict)
    title: str = ""
    heading: str = ""
    paragraphs: str = ""
    sized_image: str = ""
    image: str = ""
    image_link: str = ""
    oembed: str = ""


def parse_page(content: bytes, charset: str, url: str) -> dict[str, Any]:
    """The preview of an HTML page at a URL; `charset` is the one in its header, or empty."""
    found = _Page(url)
    root = _tree_of(decode(content, charset))
    if root is not None:
        etree.strip_elements(root, *ASIDE, with_tail=False)
        for number, element in enumerate(root.iter(*LOOKED_AT)):
            if number >= MAX_ELEMENTS:
                break
            _look_at(found, element)
    named = found.properties
    description = named.get("twitter:description") or named.get("description", "")
    fallbacks = {
        "og:title": named.get("twitter:title") or found.title or found.heading,
        "og:description": description or found.paragraphs,
    }
    images = [named.get(name, "") for name in IMAGES]
    images += [found.image_link, found.sized_image, found.image]
    return {
        "preview": bounded({**fallbacks, **_known(named)}, found.base),
        "image": _first_url(found.base, images),
        "oembed": _first_url(found.base, [found.oembed]),
    }


def parse_oembed(content: bytes, url: str) -> dict[str, Any]:
    """The preview that a response of oEmbed, in JSON, describes. Raises `ValueError`."""
    response = json.loads(content)
    if not isinstance(response, dict):
        raise ValueError("it is not an object")
    texts = {name: value for name, value in response.items() if isinstance(value, str)}
    kind = texts.get("type", "")
    properties = {
        "og:title": texts.get("title", ""),
        "og:site_name": texts.get("provider_name", ""),
        "og:description": texts.get("author_name", ""),
    }
    if kind == "rich" and (root := _tree_of(texts.get("html", ""))) is not None:
        etree.strip_elements(root, *ASIDE, with_tail=False)
        properties["og:description"] = _text_in(root, MAX_TEXT) or properties["og:description"]
    if kind == "video":
        properties["og:type"] = "video.other"
    photo = texts.get("url", "") if kind == "photo" else ""
    return {
        "preview": bounded(properties, url),
        "image": _first_url(url, [photo, texts.get("thumbnail_url", "")]),
    }


def measure(path: str, limits: ParserLimits) -> dict[str, Any]:
    """The type and size of a picture. Raises an error of any kind if it is none."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if width * height > limits.pixels:
            raise ValueError("the picture is too large")
        return {"type": CONTENT_TYPES[image.format or ""], "width": width, "height": height}


def bounded(properties: dict[str, str], base: str) -> Preview:
    """The properties that are shown, each of them and all together not too long.

    Titles and descriptions come first, so that nothing takes their place. URLs are absolute.
    """
    preview: Preview = {}
    left = MAX_PREVIEW
    for name in sorted(properties, key=lambda name: name not in ("og:title", "og:description")):
        value = _shown(name, properties[name], base)
        size = len(name) + len(str(value))
        if value == "" or size > left or len(preview) >= MAX_PROPERTIES:
            continue
        preview[name] = value
        left -= size
    return preview


def decode(content: bytes, charset: str) -> str:
    """The text of a page, by its byte order mark, the name in its header or in itself, or UTF-8.

    Bytes that are not of the character set are replaced. What is not UTF-8 either is Windows-1252.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace")
    encoding = _encoding_named(charset)
    if encoding is None and (named := CHARSET.search(content, 0, META_WITHIN)):
        encoding = _encoding_named(named[1].decode())
        # It was found in ASCII.
        encoding = None if encoding is not None and encoding.startswith("utf-16") else encoding
    if encoding is not None:
        return content.decode(encoding, "replace")
    try:
        # The last character may be incomplete.
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _encoding_named(name: str) -> str | None:
    try:
        encoding = codecs.lookup(name.strip("\"' ")).name
    except (LookupError, ValueError):
        return None
    # Pages that claim Latin-1 or ASCII mean what browsers read: Windows-1252.
    if encoding in ("iso8859-1", "ascii"):
        return "cp1252"
    return encoding if encoding in ENCODINGS else None


def _tree_of(text: str) -> Any:
    """The root of the tree; nothing if there is none. libxml2 stops at a depth of 256."""
    parser = etree.HTMLParser(
        encoding="utf-8", recover=True, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _look_at(found: _Page, element: Any) -> None:
    tag = element.tag
    if tag == "meta":
        name = element.get("property") or element.get("name") or ""
        value = element.get("content") or ""
        if value and len(name) <= MAX_TEXT:
            found.properties.setdefault(name.strip().lower(), value)
    elif tag == "link":
        _look_at_link(found, element)
    elif tag == "img":
        _look_at_image(found, element)
    elif tag == "base":
        found.base = _absolute(found.base, element.get("href") or "") or found.base
    elif tag == "title":
        found.title = found.title or _text_in(element, MAX_TITLE)
    elif tag == "p":
        if len(found.paragraphs) < ENOUGH_TEXT:
            found.paragraphs = f"{found.paragraphs} {_text_in(element, MAX_TEXT)}".strip()
    else:
        found.heading = found.heading or _text_in(element, MAX_TITLE)


def _look_at_link(found: _Page, element: Any) -> None:
    relation = (element.get("rel") or "")[:MAX_TEXT].lower().split()
    href = element.get("href") or ""
    if "image_src" in relation:
        found.image_link = found.image_link or href
    elif "alternate" in relation and element.get("type") == "application/json+oembed":
        found.oembed = found.oembed or href


def _look_at_image(found: _Page, element: Any) -> None:
    source = element.get("src") or ""
    sizes = [_number(element.get(name) or "") for name in ("width", "height")]
    if source.startswith("data:") or source.partition("?")[0].endswith(".svg"):
        return
    if all(size is not None and size >= LEAST_PIXELS for size in sizes):
        found.sized_image = found.sized_image or source
    elif all(size is None or size >= LEAST_PIXELS for size in sizes):
        found.image = found.image or source


def _known(named: dict[str, str]) -> dict[str, str]:
    """The properties that a preview may have; those of the image are the server's to say."""
    return {
        name: value
        for name, value in named.items()
        if PROPERTY.fullmatch(name) and not name.startswith("og:image")
    }


def _shown(name: str, value: str, base: str) -> str | int:
    """The value of a property in a preview; empty if it has none."""
    if URL_PROPERTY.fullmatch(name):
        return _absolute(base, value)
    if name.endswith((":width", ":height")):
        return _number(value) or ""
    return _plain([value], MAX_TITLE if name == "og:title" else MAX_TEXT)


def _text_in(element: Any, most: int) -> str:
    return _plain(element.itertext(), most)


def _plain(pieces: Iterable[str], most: int) -> str:
    """A text in one line, without what is not shown, and of at most so many characters."""
    text, left = [], 4 * most
    for piece in pieces:
        text.append(piece[:left])
        left -= len(piece)
        if left <= 0:
            break
    line = " ".join("".join(text).split())
    line = "".join(
        each for each in line if category(each) not in ("Cc", "Cs", "Cn") and each not in UNSHOWN
    )
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _number(text: str) -> int | None:
    text = text.strip().removesuffix("px")
    return int(text) if len(text) <= 6 and text.isascii() and text.isdigit() else None


def _first_url(base: str, candidates: Iterable[str]) -> str:
    return next(filter(None, (_absolute(base, each) for each in candidates)), "")


def _absolute(base: str, url: str) -> str:
    """An absolute URL on the web; empty if it is another one."""
    url = url.strip()
    if not url or len(url) > MAX_URL:
        return ""
    try:
        whole = urljoin(base, url)
        parts = urlsplit(whole)
    except ValueError:
        return ""
    is_plain = all(category(each) not in ("Cc", "Cs", "Cn") for each in whole)
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return whole if is_web and is_plain and len(whole) <= MAX_URL else ""


def answer(job: dict[str, Any], content: bytes, limits: ParserLimits) -> dict[str, Any]:
    """The result of one job, whatever strangers have sent."""
    try:
        if "page" in job:
            return parse_page(content, job["charset"], job["url"])
        if "oembed" in job:
            return parse_oembed(content, job["url"])
        return measure(job["picture"], limits)
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:
        # Decoders raise errors of many kinds for what is not a picture.
        return {"error": f"{type(error).__name__}: {error}"[:MAX_TEXT]}


def _apply(limits: ParserLimits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def _allow_cpu(seconds: int) -> None:
    """Have the system end this process if it needs more from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def main() -> None:
    """Answer jobs until the input ends."""
    limits = ParserLimits(*map(int, sys.argv[1:4]))
    _apply(limits)
    Image.init()
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        content = sys.stdin.buffer.read(job.get("page") or job.get("oembed") or 0)
        _allow_cpu(limits.cpu_seconds)
        print(json.dumps(answer(job, content, limits)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
