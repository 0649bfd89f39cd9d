"""The presence of one user, derived from the states and activity of their devices.

The most present device counts. A device that is no longer connected to an event stream counts for
a while, since polling clients reconnect; after `offline_after` it is offline. A user who is online,
but has done nothing for `idle_after`, is shown as unavailable; their next activity makes them
online again.

The `set_presence` of a poll is a change only when it differs from that of the poll before. So a
state that was set in between, through the presence API, holds.

This module reads no clock: every `now` is seconds since the epoch.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from typing import Final, Literal

import msgspec

State = Literal["online", "unavailable", "offline"]
ONLINE: Final = "online"
UNAVAILABLE: Final = "unavailable"
OFFLINE: Final = "offline"

_MOST_PRESENT_FIRST: tuple[State, ...] = (ONLINE, UNAVAILABLE)


class Timeouts(msgspec.Struct, frozen=True):
    """The seconds after which a user is idle, and a device without connection offline."""

    idle_after: float
    offline_after: float


class _Device(msgspec.Struct):
    """A device. `last_set_presence` is that of its last poll; `None` where it sent none."""

    state: State
    last_seen: float
    last_set_presence: State | None = None
    open_polls: int = 0


class UserPresence(msgspec.Struct):
    """The presence of one user. `last_active` is the time of their last activity."""

    last_active: float = 0.0
    status_msg: str | None = None
    _devices: dict[str, _Device] = msgspec.field(default_factory=dict)

    @property
    def has_devices(self) -> bool:
        """Whether any device still counts, as of the last call of `state`."""
        return bool(self._devices)

    def set(self, device_id: str, state: State, status_msg: str | None, now: float) -> None:
        """Set the state of one device and the user's status message, which counts as activity."""
        device = self._devices.get(device_id)
        if device is None:
            self._devices[device_id] = _Device(state, now)
        else:
            device.state, device.last_seen = state, now
        self.status_msg = status_msg
        self.last_active = now

    def begin_poll(self, device_id: str, set_presence: State | None, now: float) -> bool:
        """A device connects to an event stream; `set_presence` is `None` if it sent none.

        False if that changes nothing, as when it merely polls again.

        Coming online counts as activity. Staying online does not, and neither does a further device
        that comes online, since it may do so by itself.
        """
        state = set_presence or ONLINE
        device = self._devices.get(device_id)
        if device is None:
            came_online = state == ONLINE and not self._has_device_online()
            device = self._devices[device_id] = _Device(state, now, set_presence)
        elif set_presence != device.last_set_presence:
            came_online = state == ONLINE and device.state != ONLINE
            device.state, device.last_set_presence = state, set_presence
        else:
            device.open_polls += 1
            return False
        if came_online:
            self.last_active = now
        device.open_polls += 1
        return True

    def end_poll(self, device_id: str, now: float) -> None:
        """A device disconnects from an event stream."""
        device = self._devices.get(device_id)
        if device is not None:
            device.open_polls = max(0, device.open_polls - 1)
            device.last_seen = now

    def restore(self, state: State, now: float, timeouts: Timeouts) -> None:
        """Restore a state from before a restart, as if an unnamed device had just disconnected."""
        if state == UNAVAILABLE and now >= self.last_active + timeouts.idle_after:
            state = ONLINE  # but idle, and they stay so while their devices reconnect
        self._devices[""] = _Device(state, now)

    def act(self, now: float) -> None:
        """Count an activity, such as sending a message; the user is no longer unavailable."""
        self.last_active = now
        for device in self._devices.values():
            if device.state == UNAVAILABLE:
                device.state = ONLINE

    def state(self, now: float, timeouts: Timeouts) -> State:
        """The state to show; devices that have timed out are forgotten."""
        self._devices = {
            device_id: device
            for device_id, device in self._devices.items()
            if device.open_polls or now < device.last_seen + timeouts.offline_after
        }
        states = {device.state for device in self._devices.values()}
        shown: State = next((state for state in _MOST_PRESENT_FIRST if state in states), OFFLINE)
        if shown == ONLINE and now >= self.last_active + timeouts.idle_after:
            return UNAVAILABLE
        return shown

    def next_change(self, now: float, timeouts: Timeouts) -> float | None:
        """The time at which the state may change without activity; `None` for never."""
        ends = [
            device.last_seen + timeouts.offline_after
            for device in self._devices.values()
            if not device.open_polls
        ]
        idle = self.last_active + timeouts.idle_after
        if idle > now and self._has_device_online():
            ends.append(idle)
        return min(ends, default=None)

    def _has_device_online(self) -> bool:
        return any(device.state == ONLINE for device in self._devices.values())
