"""The presence of one user, made of what each of their devices says and does.

The most present device counts. One that is connected to no event stream any more counts for a
while, since clients that poll come and go; after `offline_after` it is offline. A user who is
online, but has done nothing for `idle_after`, is shown as unavailable; whatever they do next makes
them online again.

What a client says with each poll (`set_presence`) is news only when it differs from what its poll
before said. So a state that was set in between, through the API of presence, holds.

There is no clock in here: every `now` is seconds since the epoch.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from dataclasses import dataclass, field
from typing import Final, Literal

State = Literal["online", "unavailable", "offline"]
ONLINE: Final = "online"
UNAVAILABLE: Final = "unavailable"
OFFLINE: Final = "offline"

_MOST_PRESENT_FIRST: tuple[State, ...] = (ONLINE, UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """After how many seconds a user is idle, and a device without connection offline."""

    idle_after: float
    offline_after: float


@dataclass(slots=True)
class _Device:
    """`polled` is what its last poll said (`None`: nothing), `polls` how many are open now."""

    state: State
    seen: float
    polled: State | None = None
    polls: int = 0


@dataclass(slots=True)
class UserPresence:
    """What is known of one user. `last_active` is when they last did something."""

    last_active: float = 0.0
    status_msg: str | None = None
    _devices: dict[str, _Device] = field(default_factory=dict)

    @property
    def has_devices(self) -> bool:
        """Whether any device still counts, as of the last call of `state`."""
        return bool(self._devices)

    def set(self, device_id: str, state: State, status_msg: str | None, now: float) -> None:
        """The user sets their state and status on one device, which is something that they do."""
        device = self._devices.get(device_id)
        if device is None:
            self._devices[device_id] = _Device(state, now)
        else:
            device.state, device.seen = state, now
        self.status_msg = status_msg
        self.last_active = now

    def poll_began(self, device_id: str, asked: State | None, now: float) -> bool:
        """A device connects to an event stream; `asked` is its `set_presence`, if it sent one.

        False if that changes nothing, as when it merely polls again.

        To come online is something that a user does. To stay online is not, nor is it when one
        more of their devices is online, which it may be by itself.
        """
        state = asked or ONLINE
        device = self._devices.get(device_id)
        if device is None:
            came_online = state == ONLINE and not self._has_device_online()
            device = self._devices[device_id] = _Device(state, now, asked)
        elif asked != device.polled:
            came_online = state == ONLINE and device.state != ONLINE
            device.state, device.polled = state, asked
        else:
            device.polls += 1
            return False
        if came_online:
            self.last_active = now
        device.polls += 1
        return True

    def poll_ended(self, device_id: str, now: float) -> None:
        """A device left an event stream."""
        device = self._devices.get(device_id)
        if device is not None:
            device.polls = max(0, device.polls - 1)
            device.seen = now

    def remember(self, state: State, now: float, timeouts: Timeouts) -> None:
        """Go on from what was known before a restart: as if a nameless device had just left."""
        if state == UNAVAILABLE and now >= self.last_active + timeouts.idle_after:
            state = ONLINE  # but idle, and so they stay while their devices come back
        self._devices[""] = _Device(state, now)

    def act(self, now: float) -> None:
        """The user did something, such as sending a message; they are no longer unavailable."""
        self.last_active = now
        for device in self._devices.values():
            if device.state == UNAVAILABLE:
                device.state = ONLINE

    def state(self, now: float, timeouts: Timeouts) -> State:
        """The state to show; devices that are offline for good are forgotten."""
        self._devices = {
            device_id: device
            for device_id, device in self._devices.items()
            if device.polls or now < device.seen + timeouts.offline_after
        }
        states = {device.state for device in self._devices.values()}
        shown: State = next((state for state in _MOST_PRESENT_FIRST if state in states), OFFLINE)
        if shown == ONLINE and now >= self.last_active + timeouts.idle_after:
            return UNAVAILABLE
        return shown

    def next_change(self, now: float, timeouts: Timeouts) -> float | None:
        """When time alone may change the state next; `None` for never."""
        ends = [
            device.seen + timeouts.offline_after
            for device in self._devices.values()
            if not device.polls
        ]
        idle = self.last_active + timeouts.idle_after
        if idle > now and self._has_device_online():
            ends.append(idle)
        return min(ends, default=None)

    def _has_device_online(self) -> bool:
        return any(device.state == ONLINE for device in self._devices.values())
