"""Fetches what a preview is made of: the page, what oEmbed says of it, and its picture.

All three are requests to servers that strangers choose. Each, with each of its redirects, is
checked like the first; each has a bounded time and size; none has a cookie. A host gets few at a
time: pages cannot turn this server against the one that has their pictures. Without its picture, or
without oEmbed, a preview has less; without the page there is none. If this server cannot store the
picture at the moment, the preview is fetched again soon.

Spec: https://ogp.me/, https://oembed.com/#section4
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.fair_slots import FairSlots
from homeserver.config.settings import Settings
from homeserver.media.previews.permitted_urls import PermittedUrls, host_of
from homeserver.media.previews.preview_images import PreviewImage, PreviewImages
from homeserver.media.worker_processes import WorkerFailed, WorkerProcesses
from homeserver.outbound.cache_lifetimes import cache_lifetime
from homeserver.outbound.http_client import USER_AGENT, OutboundClient, OutboundError, read_body
from homeserver.outbound.streamed_body import streamed_body
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.media.content_disposition import normal_filename
from homeserver.protocol.media.content_types import base_type

PARSER = Path(__file__).resolve().with_name("page_parser.py")  # not imported: it loads the parsers
PARSERS = 2  # processes
PARSER_MEMORY = 536_870_912  # bytes of address space of one process
PARSER_CPU_SECONDS = 1
MAX_PIXELS = 100_000_000  # of a picture, which is measured and not decoded
PAGE_SECONDS = 8.0
OEMBED_SECONDS = 4.0
IMAGE_SECONDS = 8.0
MAX_FETCHES = 16  # previews at a time; each may have a page in memory
MAX_REQUESTS_TO_HOST = 4
MAX_OEMBED = 262_144  # bytes
DEFAULT_LIFETIME = 3_600.0  # seconds
MIN_LIFETIME = 300.0
MAX_LIFETIME = 86_400.0
HTML = frozenset({"text/html", "application/xhtml+xml"})
ACCEPTED_PAGE = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.5"
ACCEPTED_IMAGE = "image/webp,image/png,image/jpeg,image/gif,image/*;q=0.5"
ACCEPTED_OEMBED = "application/json"

Properties = dict[str, str | int]
T = TypeVar("T")

log = Logger()


class FetchedPreview(msgspec.Struct, frozen=True):
    """A preview without its picture, which may be used for `lifetime` seconds."""

    properties: Properties
    image: PreviewImage | None
    lifetime: float


class _Target(msgspec.Struct, frozen=True):
    """What is at a URL: a page, a picture, or something whose `properties` the URL itself gives."""

    url: str
    lifetime: float
    charset: str = ""
    page: bytes = b""
    image: PreviewImage | None = None
    properties: Properties = msgspec.field(default_factory=dict)


def page_parsers(reactor: Any) -> WorkerProcesses:
    """The processes that read what strangers have sent."""
    limits = [str(MAX_PIXELS), str(PARSER_MEMORY), str(PARSER_CPU_SECONDS)]
    return WorkerProcesses(reactor, "URL previews", PARSER, limits, size=PARSERS)


class PreviewFetcher:
    """Sends the requests of all previews, of which its caller fetches `MAX_FETCHES` at a time."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        web: OutboundClient,
        urls: PermittedUrls,
        images: PreviewImages,
        parsers: WorkerProcesses,
    ) -> None:
        self._clock = clock
        self._web = web
        self._urls = urls
        self._images = images
        self._parsers = parsers
        # Each fetch has one request at a time.
        self._slots = FairSlots(
            MAX_FETCHES,
            share=MAX_REQUESTS_TO_HOST,
            max_waiting=MAX_FETCHES,
            max_waiting_in_all=MAX_FETCHES,
        )
        self._max_page = settings.url_previews.max_page
        self._headers = {
            "User-Agent": f"{USER_AGENT} (bot; previews for users of {settings.server_name})",
            "Accept-Language": settings.url_previews.accept_language,
        }

    async def fetch(self, url: str) -> FetchedPreview:
        """The preview of a URL. Raises `OutboundError`, `WorkerFailed` or `Unavailable`."""
        target = await self._get(url, self._receive, PAGE_SECONDS, ACCEPTED_PAGE)
        if not target.page:
            return FetchedPreview(target.properties, target.image, target.lifetime)
        job = {"page": len(target.page), "charset": target.charset, "url": target.url}
        found = await self._parsers.run(job, target.page)
        properties, image_url = await self._completed(found)
        try:
            image = await self._find_image(image_url)
        except Unavailable as error:
            log.debug("the picture of a preview is not stored: {error}", error=error)
            return FetchedPreview(properties, None, MIN_LIFETIME)
        return FetchedPreview(properties, image, target.lifetime)

    async def _receive(self, response: IResponse) -> _Target:
        headers = response.headers
        content_type = (headers.getRawHeaders("Content-Type") or [""])[0][:1_000]
        kind = base_type(content_type)
        url: str = response.request.absoluteURI.decode("ascii")
        lifetime = cache_lifetime(
            headers,
            wall_seconds(self._clock),
            default=DEFAULT_LIFETIME,
            least=MIN_LIFETIME,
            most=MAX_LIFETIME,
        )
        if kind in HTML:
            page = await _read_start(response, self._max_page)
            return _Target(url, lifetime, charset_of(content_type), page)
        if kind.startswith("image/"):
            return _Target(url, lifetime, image=await self._images.receive(response))
        with streamed_body(response):
            return _Target(url, lifetime, properties=properties_of(kind, url))

    async def _completed(self, found: dict[str, Any]) -> tuple[Properties, str]:
        """What a page says of itself, completed by oEmbed; and the URL of the picture, or empty."""
        _check(found)
        properties, image_url = found["preview"], found["image"]
        if not found["oembed"] or (image_url and "og:title" in properties):
            return properties, image_url
        try:
            embedded = await self._get_oembed(found["oembed"])
        except (OutboundError, WorkerFailed) as error:
            log.debug("a preview has no oEmbed: {error}", error=error)
            return properties, image_url
        return {**embedded["preview"], **properties}, image_url or embedded["image"]

    async def _get_oembed(self, url: str) -> dict[str, Any]:
        async def receive(response: IResponse) -> bytes:
            return await read_body(response, MAX_OEMBED)

        content = await self._get(url, receive, OEMBED_SECONDS, ACCEPTED_OEMBED)
        found = await self._parsers.run({"oembed": len(content), "url": url}, content)
        _check(found)
        return found

    async def _find_image(self, url: str) -> PreviewImage | None:
        """The picture of a page, if there is one. Raises `Unavailable`."""
        if not url:
            return None
        try:
            return await self._get(url, self._images.receive, IMAGE_SECONDS, ACCEPTED_IMAGE)
        except OutboundError as error:
            log.debug("a preview has no picture: {error}", error=error)
            return None

    async def _get(
        self,
        url: str,
        receive: Callable[[IResponse], Coroutine[Deferred[Any], Any, T]],
        timeout: float,
        accepted: str,
    ) -> T:
        async def receive_found(response: IResponse) -> T:
            if response.code != 200:
                raise OutboundError(f"the status is {response.code}")
            return await receive(response)

        async with self._slots.slot(host_of(url)):
            return await self._web.stream(
                url,
                receive_found,
                timeout=timeout,
                only_https=False,
                headers={**self._headers, "Accept": accepted},
                check=self._urls.check,
            )


def charset_of(content_type: str) -> str:
    """The character set that a header names, or an empty text."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip()[:100]
    return ""


def properties_of(kind: str, url: str) -> Properties:
    """What a URL and the type of its content say, if it is a video or a sound."""
    medium = kind.partition("/")[0]
    if medium not in ("video", "audio"):
        return {}
    name = normal_filename(unquote(urlsplit(url).path.rpartition("/")[2]))
    properties: Properties = {f"og:{medium}": url, f"og:{medium}:type": kind[:100]}
    if name is not None:
        properties["og:title"] = name
    if medium == "video":
        properties["og:type"] = "video.other"
    return properties


def _check(found: dict[str, Any]) -> None:
    if "error" in found:
        raise OutboundError(f"the content cannot be read: {found['error']}")


async def _read_start(response: IResponse, most: int) -> bytes:
    """The first bytes of a body; the rest is not waited for."""
    content, size = [], 0
    with streamed_body(response, marks_its_end=True) as body:
        while size < most and (parts := await body.read()):
            content += parts
            size += sum(map(len, parts))
    return b"".join(content)[:most]
