"""Forms: the body of a POST from a page of this server, `application/x-www-form-urlencoded`.

A field that is there twice is refused, so that no two readers can take different values.

The format is described in https://url.spec.whatwg.org/#application/x-www-form-urlencoded.
"""

from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.web.query import parse_query
from homeserver.web.request import Request

MAX_FIELDS = 50


def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that a page of this server sent.

    Raises `Forbidden` for the form of another site, as browsers name it, and `InvalidParam`.
    """
    # Older browsers do not send it; the forms have tokens, too.
    if request.header(b"Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise Forbidden("This form is not from a page of this server")
    if request.body.count(b"&") >= MAX_FIELDS:
        raise InvalidParam("The form has too many fields")
    fields = parse_query(request.body)
    if any(len(values) > 1 for values in fields.values()):
        raise InvalidParam("The form has a field twice")
    return {name: values[0] for name, values in fields.items()}
