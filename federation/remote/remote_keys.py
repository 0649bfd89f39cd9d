"""Requests to other servers for keys and device lists of their users.

Of a response only what was asked for is used, and only if it has the right shape
(`homeserver/protocol/encryption/remote_keys.py`).

Spec: https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.transport.client import FederationClient
from federation.transport.errors import FederationDenied, FederationError, RemoteError
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import run_cooperatively
from homeserver.encryption.remote.remote_keys_port import ClaimedKeys, KeysUnavailable
from homeserver.protocol.encryption.remote_keys import (
    SHOWN_USAGES,
    DeviceListResponse,
    InvalidKeys,
    RemoteDeviceList,
    RemoteKeys,
    parse_claimed_key,
    parse_device_list,
    parse_queried_keys,
)
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.json_elements import BadElement, decode_apart

MAX_LIST_RESPONSE_BYTES = 4 * 1_048_576
MAX_QUERY_RESPONSE_BYTES = 16 * 1_048_576
MAX_CLAIM_RESPONSE_BYTES = 8 * 1_048_576
UNAVAILABLE = 503  # the status by which clients recognise a server to be asked again later

log = Logger()
Objects = Mapping[str, msgspec.Raw]


class RemoteKeyRequests:
    """Asks other servers; the implementation of `RemoteKeysPort`."""

    def __init__(self, client: FederationClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def fetch_device_list(self, user_id: str) -> RemoteDeviceList:
        """All devices of a user, from their server."""
        server = server_name_of(user_id)
        response: DeviceListResponse = await self._ask(
            "GET",
            server,
            path_of(f"{V1}/user/devices", user_id),
            response_type=DeviceListResponse,
            max_response=MAX_LIST_RESPONSE_BYTES,
        )
        try:
            return parse_device_list(user_id, response)
        except InvalidKeys as error:
            log.info("unusable device list from {server}: {error}", server=server, error=error)
            raise _invalid(server) from None

    async def query(
        self, server: str, wanted: Mapping[str, Sequence[str]]
    ) -> Mapping[str, RemoteKeys]:
        """The keys of users of a server, of all devices or some."""
        response: Objects = await self._ask(
            "POST",
            server,
            f"{V1}/user/keys/query",
            content={"device_keys": wanted},
            response_type=dict[str, msgspec.Raw],
            max_response=MAX_QUERY_RESPONSE_BYTES,
        )
        devices = _objects(server, response, "device_keys")
        cross_signing = {
            usage: _objects(server, response, f"{usage}_keys", is_required=False)
            for usage in SHOWN_USAGES
        }
        return await run_cooperatively(self._clock, _queried(wanted, devices, cross_signing))

    async def claim(self, server: str, claims: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        """A key for each claim, algorithm by user id and device id, that the server can satisfy."""
        response: Objects = await self._ask(
            "POST",
            server,
            f"{V1}/user/keys/claim",
            content={"one_time_keys": claims},
            response_type=dict[str, msgspec.Raw],
            max_response=MAX_CLAIM_RESPONSE_BYTES,
        )
        keys = _objects(server, response, "one_time_keys")
        return await run_cooperatively(self._clock, _claimed(claims, keys))

    async def _ask(self, method: str, server: str, path: str, **options: Any) -> Any:
        try:
            return await self._client.request(method, server, path, **options)
        except FederationError as error:
            log.info("request for keys failed: {error}", error=error)
            raise _for_client(error) from error


def _queried(
    wanted: Mapping[str, Sequence[str]], devices: Objects, cross_signing: Mapping[str, Objects]
) -> Generator[None, None, dict[str, RemoteKeys]]:
    """The keys of the users who were asked for, one user at a time."""
    found: dict[str, RemoteKeys] = {}
    for user_id in wanted:
        if user_id in devices:
            own = {
                usage: by_user[user_id]
                for usage, by_user in cross_signing.items()
                if user_id in by_user
            }
            keys = parse_queried_keys(user_id, devices[user_id], own)
            if keys is not None:
                found[user_id] = keys
        yield
    return found


def _claimed(
    claims: Mapping[str, Mapping[str, str]], response: Objects
) -> Generator[None, None, dict[str, dict[str, dict[str, msgspec.Raw]]]]:
    """The keys of the devices that were asked for, one user at a time."""
    found: dict[str, dict[str, dict[str, msgspec.Raw]]] = {}
    for user_id, algorithms in claims.items():
        devices = _decoded(response[user_id]) if user_id in response else {}
        keys = {
            device_id: key
            for device_id, algorithm in algorithms.items()
            if device_id in devices
            and (key := parse_claimed_key(algorithm, devices[device_id])) is not None
        }
        if keys:
            found[user_id] = keys
        yield
    return found


def _objects(server: str, response: Objects, name: str, *, is_required: bool = True) -> Objects:
    """The members of a member of a response. Raises `KeysUnavailable` if it must be there."""
    try:
        found: Objects = decode_apart(dict[str, msgspec.Raw], response[name])
    except (KeyError, BadElement):
        if is_required:
            raise _invalid(server) from None
        return {}
    return found


def _decoded(raw: msgspec.Raw) -> Objects:
    try:
        found: Objects = decode_apart(dict[str, msgspec.Raw], raw)
    except BadElement:
        return {}
    return found


def _invalid(server: str) -> KeysUnavailable:
    return KeysUnavailable(UNAVAILABLE, f"{server} returned an invalid response")


def _for_client(error: FederationError) -> KeysUnavailable:
    """The failure as clients see it: without addresses, and without the other server's text."""
    if isinstance(error, FederationDenied):
        return KeysUnavailable(403, f"This server may not send requests to {error.server}")
    if isinstance(error, RemoteError) and error.is_alive:
        return KeysUnavailable(error.status, f"{error.server} refused the request")
    return KeysUnavailable(UNAVAILABLE, f"{error.server} could not be reached")
