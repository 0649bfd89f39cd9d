"""A Matrix client with blocking calls over one keep-alive connection, and no retries.

For tests that have to see each request succeed or fail: a broken connection raises `ConnectionLost`
and is never retried behind the test's back, and transaction ids are the caller's.
"""

import hashlib
import hmac
import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.support.refused import Refused

CLIENT = "/_matrix/client/v3"


class ConnectionLost(Exception):
    """The request got no complete response: it may or may not have been carried out."""


class Http:
    """JSON requests over one keep-alive connection, opened again when it was lost."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token
        self._host = urlsplit(url).netloc
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, body: Any = None, *, timeout: float = 60, **query: Any
    ) -> Any:
        """The decoded response; raises `Refused` for a status of 400 and up, or `ConnectionLost`.

        `timeout` is in seconds; `body` is encoded as JSON unless it is bytes or None.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        status, response = self._exchange(method, target, data, headers, timeout)
        try:
            decoded = json.loads(response)
        except ValueError:
            raise Refused(status, {"error": f"not JSON: {response[:200]!r}"}) from None
        if status >= 400:
            raise Refused(status, decoded)
        return decoded

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        # Tests make clients where they need them, and do not close each one.
        self.close()

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes]:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._host)
            self._connection.timeout = timeout
            if self._connection.sock is not None:
                self._connection.sock.settimeout(timeout)
            self._connection.request(method, target, data, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionLost(f"{method} {target}: {error!r}") from error


class User(Http):
    """One device of one account."""

    def __init__(self, url: str, user_id: str, device_id: str, token: str) -> None:
        super().__init__(url, token)
        self.user_id = user_id
        self.device_id = device_id

    def create_room(self, **body: Any) -> str:
        """Create a room with this body; gives its id."""
        room_id: str = self.request("POST", f"{CLIENT}/createRoom", body)["room_id"]
        return room_id

    def invite(self, room_id: str, user_id: str) -> None:
        """Invite a user."""
        self.request("POST", f"{CLIENT}/rooms/{quote(room_id)}/invite", {"user_id": user_id})

    def join(self, room_id: str) -> None:
        """Join a room."""
        self.request("POST", f"{CLIENT}/join/{quote(room_id)}", {})

    def send(self, room_id: str, body: str, txn_id: str, *, timeout: float = 60) -> str:
        """Send a text message under a transaction id; gives the event id."""
        path = f"{CLIENT}/rooms/{quote(room_id)}/send/m.room.message/{quote(txn_id)}"
        content = {"msgtype": "m.text", "body": body}
        event_id: str = self.request("PUT", path, content, timeout=timeout)["event_id"]
        return event_id

    def sync(self, since: str | None = None, *, timeout_ms: int = 0, **query: Any) -> Any:
        """One `/sync`; without `since` an initial one."""
        if since is not None:
            query["since"] = since
        path = f"{CLIENT}/sync?{urlencode(query | {'timeout': timeout_ms})}"
        return self.request("GET", path, timeout=timeout_ms / 1000 + 30)

    def messages(self, room_id: str, start: str | None, *, to: str | None = None) -> list[Any]:
        """The events of a room from `start` (its end when None) back to `to`, newest first."""
        found: list[Any] = []
        query: dict[str, Any] = {"dir": "b", "limit": 100}
        if to is not None:
            query["to"] = to
        while True:
            if start is not None:
                query["from"] = start
            page = self.request("GET", f"{CLIENT}/rooms/{quote(room_id)}/messages", **query)
            found.extend(page["chunk"])
            start = page.get("end")
            if start is None or not page["chunk"]:
                return found


def register(url: str, secret: str, name: str, *, admin: bool = False) -> User:
    """A new account, made with the server's shared secret."""
    http_client = Http(url)
    path = "/_synapse/admin/v1/register"
    nonce = http_client.request("GET", path)["nonce"]
    response = http_client.request("POST", path, registration(secret, nonce, name, admin=admin))
    http_client.close()
    return User(url, response["user_id"], response["device_id"], response["access_token"])


def registration(secret: str, nonce: str, name: str, *, admin: bool = False) -> dict[str, Any]:
    """The body that registers an account with a shared secret."""
    password = password_of(name)
    parts = [nonce, name, password, "admin" if admin else "notadmin"]
    mac = hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
    return {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}


def password_of(name: str) -> str:
    """The password that `register` gives an account."""
    return f"password of {name}"


def log_in(url: str, user_id: str, password: str) -> User:
    """Another device of an account."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": password,
    }
    http_client = Http(url)
    response = http_client.request("POST", f"{CLIENT}/login", body)
    http_client.close()
    return User(url, response["user_id"], response["device_id"], response["access_token"])
