"""A client reduced to the state that it keeps of its syncs, by the rules of the specification."""

from typing import Any

StateKey = tuple[str, str]


class ClientModel:
    """Folds responses of `/sync` into what a person would see."""

    def __init__(self) -> None:
        self.since: str | None = None
        self.state: dict[str, dict[StateKey, str]] = {}  # room -> (type, key) -> event id
        self.timelines: dict[str, list[str]] = {}
        self.sticky: dict[str, set[str]] = {}
        self.invited: set[str] = set()
        self.account_data: dict[tuple[str, str], Any] = {}
        self.profiles: dict[str, dict[str, Any]] = {}

    def apply(self, response: dict[str, Any]) -> None:
        self.since = response["next_batch"]
        rooms = response.get("rooms", {})
        for room_id, section in rooms.get("invite", {}).items():
            assert section["invite_state"]["events"], "an invite has stripped state"
            self.invited.add(room_id)
            self._forget(room_id)
        for room_id in rooms.get("leave", {}):
            self.invited.discard(room_id)
            self._forget(room_id)
        for room_id, section in rooms.get("join", {}).items():
            self.invited.discard(room_id)
            self._apply_joined(room_id, section)
        self._apply_account_data("", response.get("account_data", {}))
        for user_id, update in response.get("users", {}).items():
            self._apply_profile(user_id, update["profile_updates"])

    def _apply_joined(self, room_id: str, section: dict[str, Any]) -> None:
        state = self.state.setdefault(room_id, {})
        timeline = self.timelines.setdefault(room_id, [])
        batch = section.get("timeline", {"events": [], "limited": False})
        if batch["limited"]:
            timeline.clear()
        new_ids = [event["event_id"] for event in batch["events"]]
        assert not set(new_ids) & set(timeline), "no event comes twice"
        timeline += new_ids
        beside = section.get("msc4354_sticky", {}).get("events", [])
        sticky = [each["event_id"] for each in batch["events"] if "msc4354_sticky" in each]
        sticky += [each["event_id"] for each in beside]
        assert len(sticky) == len({*sticky}), "no event is in both lists"
        self.sticky.setdefault(room_id, set()).update(sticky)
        state_after = section.get("state_after")
        if state_after is not None:
            _fold(state, state_after["events"])
        else:
            _fold(state, section.get("state", {}).get("events", []))
            _fold(state, batch["events"])
        self._apply_account_data(room_id, section.get("account_data", {}))

    def _apply_account_data(self, room_id: str, section: dict[str, Any]) -> None:
        for event in section.get("events", []):
            self.account_data[(room_id, event["type"])] = event["content"]

    def _apply_profile(self, user_id: str, fields: dict[str, Any] | None) -> None:
        known = {} if fields is None else self.profiles.get(user_id, {}) | fields
        profile = {field: value for field, value in known.items() if value is not None}
        self.profiles.pop(user_id, None)
        if profile:
            self.profiles[user_id] = profile

    def _forget(self, room_id: str) -> None:
        self.state.pop(room_id, None)
        self.timelines.pop(room_id, None)
        self.sticky.pop(room_id, None)


def _fold(state: dict[StateKey, str], events: list[dict[str, Any]]) -> None:
    for event in events:
        if "state_key" in event:
            state[(event["type"], event["state_key"])] = event["event_id"]
