"""Dehydrated devices over the API.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.dehydrated_devices import DehydratedDevices, NewDehydratedDevice
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.proposals.unstable_names import DEHYDRATED_DEVICE
from homeserver.web.routes import Route


class PutDehydratedDevice(msgspec.Struct):
    """The device, encrypted, and its public keys."""

    device_id: str
    device_data: msgspec.Raw
    device_keys: dict[str, Any]
    initial_device_display_name: str | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class DehydratedEventsQuery(msgspec.Struct):
    """Where a batch begins, the `next_batch` of the one before."""

    from_token: str | None = msgspec.field(name="from", default=None)


class DehydratedEventsBody(msgspec.Struct):
    """The same in the body of a request."""

    next_batch: str | None = None


class DehydratedDevicesApi:
    def __init__(self, devices: DehydratedDevices) -> None:
        self._devices = devices

    def routes(self) -> list[Route]:
        events = f"{DEHYDRATED_DEVICE}/{{device_id}}/events"
        return [
            Route("PUT", DEHYDRATED_DEVICE, self.put_dehydrated_device, limit="keys"),
            Route("GET", DEHYDRATED_DEVICE, self.get_dehydrated_device, limit="lookup"),
            Route("DELETE", DEHYDRATED_DEVICE, self.delete_dehydrated_device, limit="keys"),
            Route("GET", events, self.get_dehydrated_events, limit="lookup"),
            Route("POST", events, self.post_dehydrated_events, limit="lookup"),
        ]

    async def put_dehydrated_device(
        self, caller: Requester, body: PutDehydratedDevice
    ) -> dict[str, Any]:
        """Store a dehydrated device in place of the caller's previous one."""
        device = NewDehydratedDevice(
            body.device_id,
            body.device_data,
            body.initial_device_display_name,
            body.device_keys,
            body.one_time_keys or {},
            body.fallback_keys or {},
        )
        await self._devices.put(caller.user_id, device)
        return {"device_id": body.device_id}

    async def get_dehydrated_device(self, caller: Requester) -> dict[str, Any]:
        """The caller's dehydrated device."""
        device = await self._devices.get(caller.user_id)
        return {"device_id": device.device_id, "device_data": msgspec.Raw(device.device_data)}

    async def delete_dehydrated_device(self, caller: Requester) -> dict[str, Any]:
        """Remove the caller's dehydrated device."""
        return {"device_id": await self._devices.delete(caller.user_id)}

    async def get_dehydrated_events(
        self, caller: Requester, device_id: str, query: DehydratedEventsQuery
    ) -> dict[str, Any]:
        """Messages that the device received; without `next_batch` they are the last."""
        found = await self._devices.messages(caller.user_id, device_id, _position(query.from_token))
        answer: dict[str, Any] = {"events": [msgspec.Raw(event) for event in found.events]}
        if found.more_above is not None:
            answer["next_batch"] = str(found.more_above)
        return answer

    async def post_dehydrated_events(
        self, caller: Requester, device_id: str, body: DehydratedEventsBody
    ) -> dict[str, Any]:
        """The same as deployed clients ask for it: they go on until there are no more events."""
        found = await self._devices.messages(caller.user_id, device_id, _position(body.next_batch))
        return {
            "events": [msgspec.Raw(event) for event in found.events],
            "next_batch": str(found.last),
        }


def _position(token: str | None) -> int:
    if token is None or token == "":
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidParam("Not a token of this endpoint")
    return int(token)
