"""Browser sessions: users who are signed in to the pages of this server.

A session is a secret in a cookie of the browser. The server has the hash of it, and each sign-in
makes a new one, so that nobody can have prepared it (session fixation). The cookie goes to the
paths of this server only, is invisible to scripts, and is not sent with the forms of other sites.
Each form of a page carries a token besides, which is derived from the secret: a page that does not
know it cannot make the browser change anything (CSRF).

A session ends after two weeks, with the browser, with a change of the password, when the user logs
out everywhere, and with the account. A locked account has none until it is unlocked.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import Forbidden, InvalidParam, UserLocked
from homeserver.storage.accounts.users import User, find_user
from homeserver.storage.browser_sessions.browser_sessions import (
    StoredBrowserSession,
    delete_browser_session,
    delete_oldest_browser_sessions,
    find_browser_session,
    insert_browser_session,
)
from homeserver.storage.database.database import Connection, Database

LIFETIME_MS = 14 * 24 * 60 * 60 * 1000
MAX_OF_USER = 50  # sessions; the oldest give way
COOKIE = "homeserver_session"
FORM_TOKEN = "form_token"  # the field of a form
SIGN_IN = "/_matrix/account/sign_in"
SIGN_UP = "/_matrix/account/sign_up"
RESET_PASSWORD = "/_matrix/account/reset_password"
ACCOUNT = "/_matrix/account"

MAX_SECRET = 100  # characters; those of this server are shorter
MAX_TARGET = 8_192
# Own paths, in the characters of RFC 3986, section 3, except `#`: a browser sends what follows to
# no server.
_TARGET = re.compile(r"/_matrix/(oauth2/|account(?=[/?]|\Z))([-\w.~!$&'()*+,;=:@%/?]*)", re.ASCII)
_DOTS = re.compile(r"/(\.|%2e){1,2}(?=[/?]|\Z)", re.IGNORECASE)


class BrowserRequest(Protocol):
    """The part of a request in which a browser says who it is."""

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None` if it is missing or sent more than once."""


class BrowserSession(msgspec.Struct, frozen=True):
    """A user who is signed in with a browser.

    `authenticated_ms` is when they last proved who they are, in ms since the epoch. Each form of
    the session has a field `form_token` of this value.
    """

    user_id: str
    authenticated_ms: int
    form_token: str


class BrowserSessions:
    """Begins, finds and ends the sessions of browsers. The callers authenticate the users.

    `public_baseurl` is the web address of this server.
    """

    def __init__(self, db: Database, clock: Clock, public_baseurl: str) -> None:
        self._db = db
        self._clock = clock
        self.cookies = Cookies(public_baseurl)

    async def find(self, request: BrowserRequest) -> BrowserSession | None:
        """The session of the browser that makes the request, by its cookie."""
        secret = self.cookies.value(COOKIE, request)
        if secret is None:
            return None
        stored = await self._db.run(self._load, secret)
        if stored is None:
            return None
        return BrowserSession(stored.user_id, stored.authenticated_ms, form_token_of(secret))

    async def open(self, user_id: str, request: BrowserRequest) -> str:
        """Begin a session in place of the browser's present one; the value for `Set-Cookie`.

        Raises `UserLocked`, and `Forbidden` for those who cannot sign in with a browser: guests,
        users of application services, and deactivated ones.
        """
        secret = new_token()
        former = self.cookies.value(COOKIE, request)
        await self._db.transaction(self._replace, user_id, secret, former)
        return self.cookies.set(COOKIE, secret)

    async def end(self, request: BrowserRequest) -> str:
        """End the session, if there is one; the value for `Set-Cookie` that removes the cookie."""
        secret = self.cookies.value(COOKIE, request)
        if secret is not None:
            await self._db.run(delete_browser_session, token_hash(secret))
        return self.cookies.removed(COOKIE)

    async def get_requester(self, session: BrowserSession) -> Requester:
        """The user of a session as the one who makes a change, without a device.

        Raises `Forbidden` for an account that has gone meanwhile.
        """
        user = await self._db.run(find_user, session.user_id)
        if user is None or not _may_sign_in(user):
            raise Forbidden("This account cannot sign in with a browser")
        return Requester(user.user_id, None, is_admin=user.is_admin, is_suspended=user.is_suspended)

    def check_form(self, session: BrowserSession, form: Mapping[str, str]) -> None:
        """Raise `Forbidden` unless the form was made for this session."""
        check_form_token(session.form_token, form)

    async def _load(self, db: Connection, secret: str) -> StoredBrowserSession | None:
        stored = await find_browser_session(db, token_hash(secret), now_ms(self._clock))
        user = stored and await find_user(db, stored.user_id)
        if not stored or not user or not _may_sign_in(user) or user.is_locked:
            return None
        return stored

    async def _replace(self, db: Connection, user_id: str, secret: str, former: str | None) -> None:
        user = await find_user(db, user_id)
        if user is None or not _may_sign_in(user):
            raise Forbidden("This account cannot sign in with a browser")
        if user.is_locked:
            raise UserLocked("This account has been locked")
        if former is not None:
            await delete_browser_session(db, token_hash(former))
        now = now_ms(self._clock)
        await insert_browser_session(
            db, token_hash(secret), user_id, now_ms=now, expires_ms=now + LIFETIME_MS
        )
        await delete_oldest_browser_sessions(db, user_id, MAX_OF_USER)


class Cookies:
    """The cookies of this server's pages: their names, attributes and values.

    They have no lifetime, so a browser forgets them when it is closed.
    """

    def __init__(self, public_baseurl: str) -> None:
        address = urlsplit(public_baseurl)
        self.base_path = address.path.rstrip(
            "/"
        )  # what a proxy has before the paths of this server
        is_secure = address.scheme == "https"
        # Browsers accept a name with this prefix only from a secure connection.
        self._prefix = "__Secure-" if is_secure else ""
        self._attributes = (
            f"; Path={self.base_path}/_matrix/; HttpOnly; SameSite=Lax"
            f"{'; Secure' if is_secure else ''}"
        )

    def value(self, name: str, request: BrowserRequest) -> str | None:
        """The value of a cookie, or `None` if there is none, or more than one.

        Of two cookies of one name one is not from this server: another host of its domain can set
        it, too.
        """
        wanted = self._prefix + name
        pairs = (
            pair.strip().partition("=") for pair in (request.header(b"Cookie") or "").split(";")
        )
        values = {value for found, _, value in pairs if found == wanted}
        if len(values) != 1 or len(value := values.pop()) > MAX_SECRET:
            return None
        return value or None

    def set(self, name: str, value: str) -> str:
        """The value of the header `Set-Cookie` that sets a cookie."""
        return f"{self._prefix}{name}={value}{self._attributes}"

    def removed(self, name: str) -> str:
        """The value of the header `Set-Cookie` that removes a cookie."""
        return f"{self.set(name, '')}; Max-Age=0"


def form_token_of(secret: str) -> str:
    """The token for the forms of a browser with this secret, which it does not reveal."""
    digest = sha256(b"form\0" + secret.encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def check_form_token(expected: str, form: Mapping[str, str]) -> None:
    """Raise `Forbidden` unless a form has this token."""
    given = form.get(FORM_TOKEN, "").encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(expected.encode(), given):
        raise Forbidden("This page is too old, or from another sign-in. Load it again")


def check_target(target: str) -> str:
    """The path, with a query, to which a page returns. Raises `InvalidParam` for any other place.

    A page must not send users to where somebody else wants them (open redirect).
    """
    path = target.partition("?")[0]
    if len(target) > MAX_TARGET or not _TARGET.fullmatch(target) or _DOTS.search(path):
        raise InvalidParam("The page to return to is none of this server's")
    return target


def sign_in_location(target: str, *, create: bool = False) -> str:
    """The path, with a query, of the page for signing in, or for signing up with `create`.

    It returns to `target`, a path on this server with a query (see `check_target`).
    """
    return location_of(SIGN_UP if create else SIGN_IN, target)


def location_of(path: str, target: str) -> str:
    """The path, with a query, of a page that leads to `target` in the end."""
    return f"{path}?{urlencode({'target': target})}"


def _may_sign_in(user: User) -> bool:
    return not (user.is_deactivated or user.is_guest or user.appservice is not None)
