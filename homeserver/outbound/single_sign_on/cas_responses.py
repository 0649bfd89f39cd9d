"""The XML with which a CAS server responds to the validation of a ticket.

Nothing is loaded that it refers to, and entities are not expanded. This module is imported when the
first ticket is validated.

Spec: https://apereo.github.io/cas/7.2.x/protocol/CAS-Protocol-Specification.html
"""

from typing import Any

from lxml import etree

NAMESPACE = "{http://www.yale.edu/tp/cas}"
MAX_ATTRIBUTES = 1_000


class InvalidCasResponse(ValueError):
    """The response is not that of a CAS server; the message is for the log."""


class TicketRefused(ValueError):
    """The ticket is not valid; the message has the error code of the server, for the log."""


def read_claims(document: bytes) -> dict[str, Any]:
    """The attributes of the user, and `user`. Raises `InvalidCasResponse`, `TicketRefused`.

    An attribute with several values is a list.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        raise InvalidCasResponse(f"not XML: {error}") from None
    if root.tag != f"{NAMESPACE}serviceResponse" or root.getroottree().docinfo.doctype:
        raise InvalidCasResponse("not a response of a CAS server")
    failure = root.find(f"{NAMESPACE}authenticationFailure")
    if failure is not None:
        raise TicketRefused(str(failure.get("code", ""))[:100])
    success = root.find(f"{NAMESPACE}authenticationSuccess")
    user = "" if success is None else _text(success.find(f"{NAMESPACE}user"))
    if success is None or not user:
        raise InvalidCasResponse("it names no user")
    return {**_attributes(success.find(f"{NAMESPACE}attributes")), "user": user}


def _attributes(element: Any) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for child in () if element is None else element[:MAX_ATTRIBUTES]:
        if isinstance(child.tag, str) and child.tag.startswith(NAMESPACE):
            name = child.tag.removeprefix(NAMESPACE)
            found.setdefault(name, []).append(_text(child))
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _text(element: Any) -> str:
    """The text of an element.

    Raises `InvalidCasResponse` if there is anything else in it: a comment would end the text early,
    so that a user named `root<!-- -->x` would be taken for `root`.
    """
    if element is None:
        return ""
    if len(element):
        raise InvalidCasResponse(f"there is more than text in {element.tag}")
    return (element.text or "").strip()
