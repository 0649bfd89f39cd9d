"""A program that orders one certificate by ACME, and ends.

It is another process, because the library `acme` blocks, takes many megabytes, and reads what a
server sends without a bound. The process has a limit of memory and of time, and ends with its
parent. It imports nothing of the homeserver.

Lines of JSON are exchanged. The first line of the input is the order: `directory`, `account_key`
(PEM), `account` (its URL, or null if it is not registered yet), `email`, `external_account`, `csr`
(PEM), `ca_file`, `user_agent` and `seconds`. The program writes

- `{"account": URL}` when it has registered the account,
- `{"challenge": {"token": …, "key_authorization": …}}` for each response that has to be served,
- `{"certificate": PEM}` with the chain, or `{"error": …, "is_refusal": …}`, as its last line.

It continues after each but the last when it gets a line. `is_refusal` is false if no order was
placed, because the server could not be reached. Nothing secret is in the command line or in the
environment, and the private key of the certificate stays with the parent.

Spec: https://www.rfc-editor.org/rfc/rfc8555
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from queue import SimpleQueue
from threading import Thread
from typing import Any

import requests
from acme import challenges, client, errors, messages
from josepy.jwa import ES256
from josepy.jwk import JWK

MEMORY = 512 * 1_048_576  # bytes of addresses
NETWORK_SECONDS = 30
NONCE_ATTEMPTS = 5
MAX_TEXT = 2_000  # characters of an error


class _NoChallenge(Exception):
    """The server offers no challenge by HTTP for a name."""


class _Parent:
    """The process that gave the order."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[bytes] = SimpleQueue()

    def read_order(self) -> Any:
        """The order. From then on the end of the parent ends this process."""
        order = json.loads(sys.stdin.buffer.readline())
        Thread(target=self._watch, daemon=True).start()
        return order

    def say(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def say_and_wait(self, message: dict[str, Any]) -> None:
        self.say(message)
        self._lines.get()

    def _watch(self) -> None:
        for line in sys.stdin.buffer:
            self._lines.put(line)
        os._exit(1)


class _Network(client.ClientNetwork):
    """Requests that are signed again when the server refuses their nonce (RFC 8555, 6.5)."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(NONCE_ATTEMPTS - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


class _Order:
    """One order; `is_placed` once the server knows of it."""

    def __init__(self, order: Any, parent: _Parent) -> None:
        self.is_placed = False
        self._order = order
        self._parent = parent
        self._key = JWK.load(order["account_key"].encode())
        self._network = _Network(
            self._key,
            alg=ES256,
            verify_ssl=order["ca_file"] or True,
            user_agent=order["user_agent"],
            timeout=NETWORK_SECONDS,
        )

    def obtain(self) -> str:
        """The certificate with its chain, in PEM."""
        found = self._network.get(self._order["directory"]).json()
        self._client = client.ClientV2(messages.Directory.from_json(found), self._network)
        if self._order["account"]:
            self._use_account(self._order["account"])
        else:
            self._register()
        order = self._place()
        deadline = datetime.now() + timedelta(seconds=self._order["seconds"])  # noqa: DTZ005
        pending = [*self._pending_challenges(order)]
        for challenge in pending:
            response, key_authorization = challenge.response_and_validation(self._key)
            token = challenge.chall.encode("token")
            served = {"token": token, "key_authorization": key_authorization}
            self._parent.say_and_wait({"challenge": served})
        for challenge in pending:
            response, _ = challenge.response_and_validation(self._key)
            self._client.answer_challenge(challenge, response)
        order = self._client.poll_authorizations(order, deadline)
        chain: str = self._client.finalize_order(order, deadline).fullchain_pem
        return chain

    def _register(self) -> None:
        binding, external = None, self._order["external_account"]
        self._network.account = None
        if external:
            binding = messages.ExternalAccountBinding.from_data(
                account_public_key=self._key.public_key(),
                kid=external["key_id"],
                hmac_key=external["hmac_key"],
                directory=self._client.directory,
            )
        account = messages.NewRegistration.from_data(
            email=self._order["email"],
            external_account_binding=binding,
            terms_of_service_agreed=True,
        )
        try:
            url = self._client.new_account(account).uri
        except errors.ConflictError as error:
            url = error.location  # an earlier attempt ended before it could say so
        self._use_account(url)
        self._parent.say_and_wait({"account": url})

    def _use_account(self, url: str) -> None:
        self._network.account = messages.RegistrationResource(uri=url, body=messages.Registration())

    def _place(self) -> messages.OrderResource:
        csr = self._order["csr"].encode()
        try:
            order = self._client.new_order(csr)
        except messages.Error as error:
            if error.code != "accountDoesNotExist" or not self._order["account"]:
                raise
            self._register()
            order = self._client.new_order(csr)
        self.is_placed = True
        return order

    def _pending_challenges(self, order: messages.OrderResource) -> Iterator[Any]:
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue  # the server remembers an earlier one
            for challenge in authorization.body.challenges:
                if isinstance(challenge.chall, challenges.HTTP01):
                    yield challenge
                    break
            else:
                name = authorization.body.identifier.value
                raise _NoChallenge(f"the server does not validate {name} by HTTP")


def _describe(error: Exception) -> str:
    """What the server said, or what happened."""
    match error:
        case errors.ValidationError():
            return "; ".join(
                f"{failed.body.identifier.value}: {_problem(challenge.error)}"
                for failed in error.failed_authzrs
                for challenge in failed.body.challenges
                if challenge.error is not None
            )
        case messages.Error():
            return _problem(error)
        case errors.IssuanceError():
            return _problem(error.error)
        case errors.TimeoutError():
            return "the server did not finish the order in time"
        case requests.RequestException():
            return f"the server cannot be reached: {error}"
        case MemoryError():
            return "the server sent too much"
        case _NoChallenge():
            return str(error)
        case _:
            return f"the server sent something unexpected: {type(error).__name__}: {error}"


def _problem(error: messages.Error) -> str:
    """A problem document (RFC 8555, 6.7), with those of single names."""
    texts = [str(error.detail or error.title or error.description or error.typ)]
    for part in error.subproblems or ():
        name = part.identifier.value if part.identifier else "?"
        texts.append(f"{name}: {part.detail or part.typ}")
    return "; ".join(texts)


def main() -> None:
    """Process the order on the standard input."""
    parent = _Parent()
    wanted = parent.read_order()
    signal.alarm(wanted["seconds"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    order = _Order(wanted, parent)
    try:
        chain = order.obtain()
    except Exception as error:
        is_refusal = order.is_placed or not isinstance(error, requests.RequestException)
        parent.say({"error": _describe(error)[:MAX_TEXT], "is_refusal": is_refusal})
    else:
        parent.say({"certificate": chain})


if __name__ == "__main__":
    main()
