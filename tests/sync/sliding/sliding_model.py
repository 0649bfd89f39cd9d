"""A client of sliding sync reduced to what it keeps, by the rules of the proposal."""

from typing import Any

StateKey = tuple[str, str]


class SlidingModel:
    """Folds responses, in the accepted form, into what a person would see."""

    def __init__(self) -> None:
        self.pos: str | None = None
        self.state: dict[str, dict[StateKey, str]] = {}  # room -> (type, key) -> event id
        self.timelines: dict[str, list[str]] = {}
        self.memberships: dict[str, str] = {}
        self.names: dict[str, str | None] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.account_data: dict[tuple[str, str], Any] = {}

    def apply(self, response: dict[str, Any]) -> None:
        self.pos = response["pos"]
        for room_id, room in response["rooms"].items():
            self.memberships[room_id] = room["membership"]
            if "stripped_state" in room:
                assert room["initial"]
                self._forget(room_id)
            else:
                self._apply_room(room_id, room)
        data = response["extensions"].get("account_data", {})
        for event in data.get("global", ()):
            self.account_data[("", event["type"])] = event["content"]
        for room_id, events in data.get("rooms", {}).items():
            for event in events:
                self.account_data[(room_id, event["type"])] = event["content"]

    def _forget(self, room_id: str) -> None:
        for kept in (self.state, self.timelines, self.names, self.counts):
            kept.pop(room_id, None)

    def _apply_room(self, room_id: str, room: dict[str, Any]) -> None:
        if room.get("initial"):
            self._forget(room_id)
        else:
            assert room_id in self.state, "what changes was sent before"
        self._apply_state(room_id, room)
        self._apply_timeline(room_id, room)
        self.names[room_id] = room["name"] if "name" in room else self.names.get(room_id)
        if "joined_count" in room:
            self.counts[room_id] = room["joined_count"], room["invited_count"]

    def _apply_state(self, room_id: str, room: dict[str, Any]) -> None:
        state = self.state.setdefault(room_id, {})
        if room.get("limited"):
            # The client may have missed changes of members that it was not sent.
            self.flush(state)
        for event in room.get("required_state", ()):
            key = event["type"], event["state_key"]
            if "content" in event:
                state[key] = event["event_id"]
            else:
                state.pop(key, None)

    def flush(self, state: dict[StateKey, str]) -> None:
        """Drop what a gap may have changed; nothing, as all state is required."""

    def _apply_timeline(self, room_id: str, room: dict[str, Any]) -> None:
        timeline = self.timelines.setdefault(room_id, [])
        new = [event["event_id"] for event in room.get("timeline", ())]
        assert room.get("num_live", 0) <= len(new)
        if room.get("expanded_timeline"):
            common = [event_id for event_id in timeline if event_id in new]
            assert not common or timeline[-len(common) :] == common, "the newest ones are the same"
            timeline.clear()
        elif room.get("limited"):
            timeline.clear()
        assert not set(new) & set(timeline), "no event comes twice"
        timeline += new


class LazyModel(SlidingModel):
    """A client that loads members lazily."""

    def flush(self, state: dict[StateKey, str]) -> None:
        for key in [key for key in state if key[0] == "m.room.member"]:
            del state[key]
