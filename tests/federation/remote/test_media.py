"""Files of another server, of any implementation, and of a scripted one that misbehaves.

Spec: https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import os

import pytest

from homeserver.protocol.media.multipart import after_file, before_file
from tests.media.media_client import CREATE, DOWNLOAD, THUMBNAIL, Got, get_as, path_of, upload_as
from tests.media.pictures import animation, bomb, decode, encode, halves
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import Answer, Break, Endless, always
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import together
from tests.support.sites import LOCAL, Scene

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

MEBIBYTE = 1_048_576
BOUNDARY = "0123456789"
MULTIPART = f"multipart/mixed; boundary={BOUNDARY}"


async def download(actor: Actor, file: str, **query: object) -> Got:
    """Download a file."""
    return await get_as(actor, f"{DOWNLOAD}/{file}", **query)


async def test_a_file_crosses_servers(scene: Scene) -> None:
    """With its content, its type and its name, whichever server it is on."""
    alice, bob = await scene.alice_and_bob()
    for content, content_type, name in (
        (b"hello", "text/plain", "Grüße an alle.txt"),
        (os.urandom(3 * MEBIBYTE), "video/mp4", "film.mp4"),
    ):
        file = await upload_as(alice, content, content_type, filename=name)

        got = await download(bob, file)
        named = await download(bob, f"{file}/other.bin")

        assert (got.status, got.body == content) == (200, True)
        assert got.headers["content-type"].startswith(content_type)
        assert got.headers["content-disposition"].startswith("inline; filename")
        if name.isascii():
            assert name in got.headers["content-disposition"]
        assert named.body == content
        assert "other.bin" in named.headers["content-disposition"]


async def test_an_empty_file(scene: Scene) -> None:
    """It is a file, too."""
    if scene.first.kind != LOCAL:
        pytest.skip("the other implementation sends no part for it")
    alice, bob = await scene.alice_and_bob()
    file = await upload_as(alice, b"", "text/plain")

    got = await download(bob, file)

    assert (got.status, got.body) == (200, b"")


async def test_thumbnails_of_another_server(scene: Scene) -> None:
    """Pictures of users of other servers appear in small, too."""
    alice, bob = await scene.alice_and_bob()
    file = await upload_as(alice, encode(halves(1_000, 500), "JPEG"), "image/jpeg")
    moving = await upload_as(alice, animation("GIF"), "image/gif")

    scaled = await get_as(bob, f"{THUMBNAIL}/{file}", width=320, height=240, method="scale")
    cropped = await get_as(bob, f"{THUMBNAIL}/{file}", width=96, height=96, method="crop")
    still = await get_as(bob, f"{THUMBNAIL}/{moving}", width=320, height=240, method="scale")

    assert decode(scaled.body).size == (320, 160)
    assert decode(cropped.body).size == (96, 96)
    assert not getattr(decode(still.body), "is_animated", False)


async def test_many_readers_of_one_file(scene: Scene) -> None:
    """All members of a room look at a film at once, and all get the whole of it."""
    alice, bob = await scene.alice_and_bob()
    content = os.urandom(5 * MEBIBYTE)
    file = await upload_as(alice, content, "video/mp4")

    everyone = await together(*(download(bob, file) for _ in range(5)))

    assert [got.body == content for got in everyone] == [True] * 5


async def test_what_the_other_server_does_not_have(scene: Scene) -> None:
    """The user learns that it is missing."""
    bob = await scene.user(scene.second, "bob")

    got = await download(bob, f"{scene.first.name}/nothing")

    assert (got.status, got.errcode) == (404, "M_NOT_FOUND")


async def test_a_file_that_is_not_uploaded_yet(scene: Scene) -> None:
    """It can be sent before its upload is complete."""
    alice, bob = await scene.alice_and_bob()
    file = path_of((await alice.request("POST", CREATE, b""))["content_uri"])

    early = await download(bob, file, timeout_ms=100)

    if scene.second.kind == LOCAL:
        assert (early.status, early.errcode) == (504, "M_NOT_YET_UPLOADED")
    else:
        assert early.status >= 500


# What follows is about this implementation alone, against a server that misbehaves.


@pytest.fixture
def lone(solo: Scene) -> Scene:
    """A server of this implementation."""
    if solo.first.kind != LOCAL:
        pytest.skip("another implementation has rules of its own")
    return solo


def whole(content: bytes, **headers: str) -> Answer:
    """A valid response with a file."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = before_file(BOUNDARY, named) + content + after_file(BOUNDARY)
    return Answer(200, body, Content_Type=MULTIPART)


async def test_one_request_for_many_readers(lone: Scene, fake: FakeServer) -> None:
    """The other server is asked once, and not again for what is cached."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(whole(b"x" * MEBIBYTE, Content_Type="image/png"))

    everyone = await together(*(download(bob, f"{fake.name}/abc") for _ in range(8)))
    again = await download(bob, f"{fake.name}/abc")

    assert [len(got.body) for got in (*everyone, again)] == [MEBIBYTE] * 9
    requests = [each for each in fake.received if each.operation == "get_media"]
    assert [each.path for each in requests] == [{"media_id": "abc"}]
    assert again.headers["accept-ranges"] == "bytes"


async def test_old_servers_are_asked_at_the_old_endpoint(lone: Scene, fake: FakeServer) -> None:
    """Without a signature, and never in a circle."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(Answer(404, {"errcode": "M_UNRECOGNIZED", "error": "?"}))
    fake.answers["get_old_media"] = always(
        Answer(
            200, b"old", Content_Type="image/gif", Content_Disposition="inline; filename=old.gif"
        )
    )

    got = await download(bob, f"{fake.name}/abc")

    assert (got.status, got.body, got.headers["content-type"]) == (200, b"old", "image/gif")
    assert got.headers["content-disposition"] == "inline; filename=old.gif"
    request = next(each for each in fake.received if each.operation == "get_old_media")
    assert request.first("allow_remote") == "false"
    assert request.path["server_name"] == fake.name


async def test_a_file_at_another_address(lone: Scene, fake: FakeServer) -> None:
    """A server may keep its files on a content delivery network."""
    bob = await lone.user(lone.second, "bob")
    location = f"https://{fake.name}/_matrix/media/v3/download/{fake.name}/moved"
    fake.answers["get_media"] = always(whole(b"", Location=location))
    fake.answers["get_old_media"] = always(Answer(200, b"moved", Content_Type="text/plain"))

    got = await download(bob, f"{fake.name}/abc")

    assert (got.status, got.body, got.headers["content-type"]) == (200, b"moved", "text/plain")


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/", "file:///etc/passwd", "https://127.0.0.1:1/", "", "https://", "a\0b"],
)
async def test_addresses_that_lead_nowhere(lone: Scene, fake: FakeServer, location: str) -> None:
    """A server cannot make this one read files, or send requests without encryption."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(whole(b"", Location=location))

    got = await download(bob, f"{fake.name}/abc")

    assert got.status == 502


HOSTILE = {
    "no JSON": Answer(200, b"\x00\xff{"),
    "no boundary": Answer(200, b"x", Content_Type="multipart/mixed"),
    "another boundary": Answer(
        200,
        before_file("a", {}) + b"x" + after_file("a"),
        Content_Type="multipart/mixed; boundary=b",
    ),
    "one part": Answer(200, b"--a\r\n\r\n{}\r\n--a--", Content_Type="multipart/mixed; boundary=a"),
    "cut off": Answer(200, before_file(BOUNDARY, {}) + b"x", Content_Type=MULTIPART),
    "large metadata": Answer(
        200, b"--a\r\n\r\n" + b" " * 100_000, Content_Type="multipart/mixed; boundary=a"
    ),
    "an error without a code": Answer(500, b"<html>"),
    "broken off": Break(),
    "endless": Endless(),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_garbage_is_refused_and_not_stored(lone: Scene, fake: FakeServer, name: str) -> None:
    """No garbage of another server is an internal error."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(HOSTILE[name])

    first = await download(bob, f"{fake.name}/abc")
    second = await download(bob, f"{fake.name}/abc")

    assert [first.status, second.status] == [502, 502]
    assert first.errcode in ("M_UNKNOWN", "M_TOO_LARGE")
    # The second one was answered from memory.
    assert len([each for each in fake.received if each.operation == "get_media"]) == 1


async def test_hostile_headers_of_a_file(lone: Scene, fake: FakeServer) -> None:
    """A page of another server is not shown in the name of this one."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(
        whole(
            b"<script>",
            Content_Type="text/html, image/png",
            Content_Disposition="inline; filename*=utf-8''..%2f..%0d%0aSet-Cookie%3A%20a",
        )
    )

    got = await download(bob, f"{fake.name}/abc")

    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == 'attachment; filename="../..Set-Cookie: a"'
    assert "set-cookie" not in got.headers


async def test_a_bomb_of_another_server(lone: Scene, fake: FakeServer) -> None:
    """It costs one attempt, in a process of its own."""
    bob = await lone.user(lone.second, "bob")
    fake.answers["get_media"] = always(whole(bomb(30_000, 30_000), Content_Type="image/png"))

    got = await get_as(bob, f"{THUMBNAIL}/{fake.name}/abc", width=96, height=96, method="crop")

    assert (got.status, got.errcode) == (502, "M_TOO_LARGE")


async def test_errors_of_another_server(lone: Scene, fake: FakeServer) -> None:
    """The user learns why there is no picture."""
    bob = await lone.user(lone.second, "bob")
    for number, (status, errcode, expected) in enumerate(
        (
            (404, "M_NOT_FOUND", (404, "M_NOT_FOUND")),
            (403, "M_FORBIDDEN", (404, "M_NOT_FOUND")),
            (504, "M_NOT_YET_UPLOADED", (504, "M_NOT_YET_UPLOADED")),
            (502, "M_TOO_LARGE", (502, "M_TOO_LARGE")),
            (429, "M_LIMIT_EXCEEDED", (429, "M_LIMIT_EXCEEDED")),
            (500, "M_UNKNOWN", (502, "M_UNKNOWN")),
        )
    ):
        fake.answers["get_media"] = always(Answer(status, {"errcode": errcode, "error": "no"}))

        got = await download(bob, f"{fake.name}/file{number}")

        assert (got.status, got.errcode) == expected


async def test_another_server_cannot_stop_a_client(lone: Scene, fake: FakeServer) -> None:
    """A client that waits for as long as the response says comes back."""
    bob = await lone.user(lone.second, "bob")
    error = {"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 2**63}
    fake.answers["get_media"] = always(Answer(429, error))

    got = await download(bob, f"{fake.name}/file")

    assert (got.status, got.json["retry_after_ms"]) == (429, 60_000)
    assert got.headers["retry-after"] == "60"


async def test_only_signed_requests_get_files(lone: Scene, fake: FakeServer) -> None:
    """And no file of a third server is passed on."""
    alice = await lone.user(lone.first, "alice")
    file = (await upload_as(alice, b"x" * 300_000, "image/png", filename="a.png")).split("/")[1]
    path = f"/_matrix/federation/v1/media/download/{file}"

    unsigned = await get_as(alice, path)
    response = await fake._http.get(f"{alice.url}{path}")

    assert unsigned.status == 401
    assert response.code == 401


async def test_the_old_endpoint_fetches_nothing(lone: Scene, fake: FakeServer) -> None:
    """Strangers cannot make this server send requests."""
    bob = await lone.user(lone.second, "bob")
    bob.token = None

    got = await get_as(bob, f"/_matrix/media/v3/download/{fake.name}/abc")

    assert (got.status, got.errcode) == (404, "M_NOT_FOUND")
    assert [each for each in fake.received if "media" in each.operation] == []
