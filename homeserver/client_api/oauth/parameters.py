"""The parameters of the OAuth 2.0 endpoints: forms that have each of them at most once.

Source: https://datatracker.ietf.org/doc/html/rfc6749#section-3.2
"""

from homeserver.protocol.errors import MatrixError
from homeserver.protocol.oauth.authorization_requests import Parameters, single_parameter
from homeserver.protocol.oauth.errors import INVALID_REQUEST, OAuthError
from homeserver.web.query import parse_query

MAX_PARAMETERS = 50


def body_parameters(body: bytes) -> dict[str, list[str]]:
    """The parameters in a request body. Raises `OAuthError`."""
    if body.count(b"&") >= MAX_PARAMETERS:
        raise OAuthError(INVALID_REQUEST, "the body has too many parameters")
    try:
        parameters = parse_query(body)
    except MatrixError:
        raise OAuthError(INVALID_REQUEST, "the body is not a form of UTF-8 text") from None
    for name in parameters:
        single_parameter(parameters, name)
    return parameters


def required_parameter(parameters: Parameters, name: str) -> str:
    """A parameter. Raises `OAuthError` where it is missing."""
    value = single_parameter(parameters, name)
    if value is None:
        raise OAuthError(INVALID_REQUEST, f"the parameter {name} is missing")
    return value
