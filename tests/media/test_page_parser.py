"""Pages and responses of strangers, as the program that reads them sees them."""

import html
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.media.previews.page_parser import (
    MAX_PREVIEW,
    MAX_PROPERTIES,
    MAX_TEXT,
    MAX_TITLE,
    MAX_URL,
    PROPERTY,
    ParserLimits,
    answer,
    decode,
    parse_oembed,
    parse_page,
)
from homeserver.media.previews.preview_fetcher import charset_of

URL = "https://example.org/folder/page"
LIMITS = ParserLimits(1_000_000, 0, 0)
PIECES = st.sampled_from(
    [
        *(
            "<",
            ">",
            "</",
            "/>",
            '"',
            "'",
            "=",
            "&",
            "<!--",
            "-->",
            "<![CDATA[",
            "<!DOCTYPE x [",
            "\0",
        ),
        *("<html>", "<head>", "<body>", "<p>", "</p>", "<b>", "<table>", "<script>", "</script>"),
        *('<meta property="og:title" content="', '<meta name="description" content="', "<title>"),
        *('<meta property="og:', '" content="', "<link rel=alternate type=application/json+oembed"),
        *('<img src="', " width=200", ' height="200"', "<base href='//", "href=//h/p", "x:y()"),
        *("&#0;", "&#xd800;", "&#1114112;", "&nbsp;", "\ufeff", "\u202e", "\ud800", "é", "\r\n"),
    ]
)
MARKUP = st.lists(PIECES | st.text(max_size=20)).map("".join)


def page(head: str, body: str = "") -> dict[str, Any]:
    text = f"<html><head>{head}</head><body>{body}</body></html>"
    return parse_page(text.encode("utf-8", "surrogatepass"), "", URL)


def assert_bounded(found: dict[str, Any]) -> None:
    """A result is what may be stored and sent to clients."""
    preview = found["preview"]
    assert len(preview) <= MAX_PROPERTIES
    assert sum(len(name) + len(str(value)) for name, value in preview.items()) <= MAX_PREVIEW
    for name, value in preview.items():
        assert PROPERTY.fullmatch(name)
        assert not name.startswith("og:image")
        assert value != ""
        assert len(str(value)) <= max(MAX_TEXT, MAX_URL)
        assert not set(str(value)) & set("\0\r\n\t\u202e")
    for url in (found["image"], found.get("oembed", "")):
        assert url == "" or url.startswith(("http://", "https://"))
        assert len(url) <= MAX_URL
    json.dumps(found, ensure_ascii=False).encode()


@given(st.binary() | MARKUP.map(lambda text: text.encode("utf-8", "surrogatepass")), st.text())
def test_any_bytes_are_a_page(content: bytes, charset: str) -> None:
    """No page of a stranger is an error, and none makes a preview too large."""
    assert_bounded(parse_page(content, charset, URL))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | MARKUP,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["type", "title", "html", "url", "thumbnail_url", "provider_name"]),
        st.sampled_from(["rich", "photo", "video", "//h/p"]) | MARKUP | st.none(),
    ).map(json.dumps)
    | st.text()
)
def test_any_text_is_a_response_of_oembed(content: str) -> None:
    """The same holds for oEmbed, except that what is not an object is refused."""
    try:
        found = parse_oembed(content.encode("utf-8", "surrogatepass"), URL)
    except (ValueError, RecursionError):
        return
    assert_bounded(found)


@given(st.dictionaries(st.text(string.ascii_lowercase), st.text(max_size=3_000), max_size=100))
def test_many_and_long_properties(properties: dict[str, str]) -> None:
    """A page cannot fill the database with its description, and its title has a place."""
    elements = "".join(
        f'<meta property="og:{name}" content="{html.escape(value)}">'
        for name, value in properties.items()
    )
    filler = "".join(f'<meta property="og:a{n}" content="{"x" * 2_000}">' for n in range(60))

    found = page(f"{filler}{elements}<title>T</title>")

    assert_bounded(found)
    assert "og:title" in found["preview"]


def test_long_texts_are_cut() -> None:
    """What is too long ends with an ellipsis."""
    found = page(f"<title>{'t' * 1_000}</title>", f"<p>{'word ' * 1_000}</p>")["preview"]

    assert found["og:title"] == "t" * (MAX_TITLE - 1) + "…"
    assert found["og:description"] == ("word " * 200)[: MAX_TEXT - 1].rstrip() + "…"


def test_deep_nesting_is_cut() -> None:
    """A page of a million open elements is read up to a depth."""
    found = parse_page(b"<title>T</title>" + b"<div>" * 400_000 + b"<p>deep", "", URL)

    assert found["preview"] == {"og:title": "T"}


def test_entities_are_not_expanded() -> None:
    """A page cannot define entities that grow."""
    bomb = '<!DOCTYPE html [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><p>&b;</p>'

    assert "aaa" not in str(parse_page(bomb.encode(), "", URL))


@pytest.mark.parametrize(
    ("head", "image"),
    [
        ('<meta property="og:image" content="a.png">', "https://example.org/folder/a.png"),
        ('<base href="/b/"><meta property="og:image" content="a">', "https://example.org/b/a"),
        ('<base href="ftp://b/"><meta property="og:image" content="//h/a">', "https://h/a"),
        ('<link rel="image_src" href="https://h/a">', "https://h/a"),
        (
            '<meta property="og:image" content="data:x"><meta name="twitter:image" content="/a">',
            "https://example.org/a",
        ),
        ('<meta property="og:image" content="http://[">', ""),
        ('<meta property="og:image" content="file:///etc/passwd">', ""),
        (f'<meta property="og:image" content="https://h/{"a" * 3_000}">', ""),
    ],
)
def test_urls_of_pictures(head: str, image: str) -> None:
    """Pictures have absolute URLs on the web, or none."""
    assert page(head)["image"] == image


@pytest.mark.parametrize(
    ("body", "image"),
    [
        ('<img src="/a">', "https://example.org/a"),
        ('<img src="/a"><img src="/b" width="300" height="300px">', "https://example.org/b"),
        ('<img src="/a" width="1" height="1">', ""),
        ('<img src="data:image/png;base64,xx"><img src="/logo.svg">', ""),
        ('<footer><img src="/a"></footer>', ""),
    ],
)
def test_pictures_in_a_page(body: str, image: str) -> None:
    """The first picture that is no icon stands for a page without a better one."""
    assert page("", body)["image"] == image


@pytest.mark.parametrize(
    ("response", "preview", "image"),
    [
        ({"type": "photo", "url": "/a", "title": "T"}, {"og:title": "T"}, "https://example.org/a"),
        (
            {"type": "rich", "html": "<p>Hello <b>you</b></p><script>x()</script>"},
            {"og:description": "Hello you"},
            "",
        ),
        ({"type": "link", "author_name": "A"}, {"og:description": "A"}, ""),
        ({"type": 5, "title": ["T"], "thumbnail_url": {}}, {}, ""),
    ],
)
def test_oembed(response: Any, preview: Any, image: str) -> None:
    """Each type of response says something."""
    assert parse_oembed(json.dumps(response).encode(), URL) == {"preview": preview, "image": image}


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        ("é".encode(), "", "é"),
        ("é€".encode()[:-1], "", "é"),
        ("é!".encode("cp1252"), "", "é!"),
        ("€".encode("cp1252"), "ISO-8859-1", "€"),
        ("я".encode("koi8-r"), '"KOI8-R"', "я"),
        ("\ufeffé".encode("utf-16-be"), "utf-8", "é"),
        ('<meta charset="utf-16">é'.encode(), "", '<meta charset="utf-16">é'),
        (b"\xff", "utf-8", "\ufffd"),
        (b"abc-", "punycode", "abc-"),
        (b"a", "\0", "a"),
        (b"a", "x" * 10_000, "a"),
    ],
)
def test_character_sets(content: bytes, charset: str, text: str) -> None:
    """A page is read as browsers read it, whatever it says of its character set."""
    assert decode(content, charset) == text


@pytest.mark.parametrize(
    ("header", "charset"),
    [
        ("text/html", ""),
        ("text/html; charset=utf-8", "utf-8"),
        ('text/html;a=b;Charset="x"', '"x"'),
        ("text/html;charset", ""),
    ],
)
def test_character_set_of_a_header(header: str, charset: str) -> None:
    """The header of a response may name the character set."""
    assert charset_of(header) == charset


def test_errors_are_results() -> None:
    """No job ends the program."""
    for job in ({"picture": "/nowhere"}, {"oembed": 2, "url": URL}, {"page": 1}, {}):
        assert "error" in answer(job, b"[]", LIMITS)
