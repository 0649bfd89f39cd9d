"""Pushers over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import InvalidParam, MissingParam
from homeserver.protocol.proposals.unstable_names import PUSHER_ENABLED
from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_email
from homeserver.push.pushers.pusher import EMAIL, HTTP
from homeserver.push.pushers.pushers import PusherRequest, Pushers
from homeserver.web.routes import Route

GATEWAY_PATH = "/_matrix/push/v1/notify"
EMAIL_APP_ID = "m.email"
MAX_PUSHKEY_BYTES = 512
MAX_BRAND = 64  # characters
MAX_APP_ID = 64  # characters
MAX_NAME_BYTES = 1_024  # of a display name, a profile tag or a language
MAX_URL_BYTES = 2_048
MAX_DATA_BYTES = 8_192


class SetPusher(msgspec.Struct):
    """A pusher; `kind` is null to delete it. `enabled` is that of MSC3881."""

    app_id: str | None = None
    pushkey: str | None = None
    kind: str | msgspec.UnsetType | None = msgspec.UNSET
    app_display_name: str | None = None
    device_display_name: str | None = None
    profile_tag: str | None = None
    lang: str | None = None
    data: dict[str, Any] | None = None
    append: bool = False
    enabled: bool | None = None
    unstable_enabled: bool | None = msgspec.field(default=None, name=PUSHER_ENABLED)


class PushersApi:
    """`has_emails`: this server sends notifications by e-mail."""

    def __init__(self, pushers: Pushers, *, has_emails: bool) -> None:
        self._pushers = pushers
        self._has_emails = has_emails

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/pushers"
        return [
            Route("GET", path, self.get_pushers),
            Route("POST", f"{path}/set", self.post_pusher, limit="settings"),
        ]

    async def get_pushers(self, caller: Requester) -> dict[str, Any]:
        """The pushers of the caller."""
        pushers = await self._pushers.of(caller.user_id)
        return {"pushers": [pusher.client_json() for pusher in pushers]}

    async def post_pusher(self, caller: Requester, body: SetPusher) -> None:
        """Set or delete a pusher."""
        if body.kind is None:
            _check_present(body, "app_id", "pushkey")
            app_id = str(body.app_id)
            pushkey = _pushkey(app_id, str(body.pushkey))
            await self._pushers.delete(caller.user_id, app_id, pushkey)
        else:
            await self._pushers.set(caller, _checked(body, has_emails=self._has_emails))


def _checked(body: SetPusher, *, has_emails: bool) -> PusherRequest:
    """The request in a body. Raises `MissingParam` and `InvalidParam`."""
    _check_present(
        body,
        *("app_id", "pushkey", "kind", "app_display_name", "device_display_name", "lang", "data"),
    )
    enabled = body.unstable_enabled if body.enabled is None else body.enabled
    request = PusherRequest(
        kind=str(body.kind),
        app_id=body.app_id or "",
        pushkey=_pushkey(body.app_id or "", body.pushkey or ""),
        app_display_name=body.app_display_name or "",
        device_display_name=body.device_display_name or "",
        profile_tag=body.profile_tag or "",
        lang=body.lang or "",
        data=msgspec.json.encode(body.data),
        enabled=enabled is not False,
        append=body.append,
    )
    _check_sizes(request)
    if request.kind == EMAIL and has_emails:
        _check_email(request, body.data or {})
    elif request.kind == HTTP:
        # It would take the pusher by e-mail from the user whose address it is.
        if request.app_id == EMAIL_APP_ID:
            raise InvalidParam(f"The app_id {EMAIL_APP_ID} is that of pushers by e-mail")
        _check_url((body.data or {}).get("url"))
        if not isinstance((body.data or {}).get("format"), str | None):
            raise InvalidParam("The format of notifications is a string")
    else:
        kinds = "http or email" if has_emails else "http"
        raise InvalidParam(f"The kind of a pusher is {kinds}, or null to delete it")
    return request


def _pushkey(app_id: str, pushkey: str) -> str:
    """A pushkey, which is a canonical address if it is one of the app of e-mails."""
    if app_id == EMAIL_APP_ID:
        try:
            return canonical_email(pushkey)
        except InvalidThirdPartyId:
            pass
    return pushkey


def _check_email(request: PusherRequest, data: dict[str, Any]) -> None:
    """Raise `InvalidParam` for a pusher by e-mail that is not as the specification has it."""
    if request.app_id != EMAIL_APP_ID:
        raise InvalidParam(f"The app_id of a pusher by e-mail is {EMAIL_APP_ID}")
    try:
        canonical_email(request.pushkey)
    except InvalidThirdPartyId as error:
        raise InvalidParam(f"The pushkey is not an e-mail address: {error}") from None
    brand = data.get("brand")
    if brand is not None and not (isinstance(brand, str) and len(brand) <= MAX_BRAND):
        raise InvalidParam(f"A brand is a string of at most {MAX_BRAND} characters")


def _check_present(body: SetPusher, *names: str) -> None:
    missing = [name for name in names if getattr(body, name) in (None, msgspec.UNSET)]
    if missing:
        raise MissingParam(f"Missing parameters: {', '.join(missing)}")


def _check_sizes(request: PusherRequest) -> None:
    if not 1 <= len(request.app_id) <= MAX_APP_ID:
        raise InvalidParam(f"An app_id has 1 to {MAX_APP_ID} characters")
    if not 1 <= len(request.pushkey.encode()) <= MAX_PUSHKEY_BYTES:
        raise InvalidParam(f"A pushkey has 1 to {MAX_PUSHKEY_BYTES} bytes")
    for name in ("app_display_name", "device_display_name", "profile_tag", "lang"):
        if len(getattr(request, name).encode()) > MAX_NAME_BYTES:
            raise InvalidParam(f"{name} has at most {MAX_NAME_BYTES} bytes")
    if len(request.data) > MAX_DATA_BYTES:
        raise InvalidParam(f"The data of a pusher has at most {MAX_DATA_BYTES} bytes")


def _check_url(url: Any) -> None:
    """Raise `MissingParam` or `InvalidParam` for the URL of a gateway that may not be used."""
    if url is None:
        raise MissingParam("Missing parameters: data.url")
    if not isinstance(url, str) or len(url.encode()) > MAX_URL_BYTES:
        raise InvalidParam(f"The URL of a gateway is a string of at most {MAX_URL_BYTES} bytes")
    try:
        parts = urlsplit(url)
        is_valid = (
            parts.scheme in ("https", "http")
            and bool(parts.hostname)
            and parts.username is None
            and parts.path == GATEWAY_PATH
            and not (parts.query or parts.fragment)
            and (parts.port or 1) > 0
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidParam(f"The URL of a gateway is https, and its path {GATEWAY_PATH}")
