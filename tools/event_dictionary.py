"""Train the dictionary of compressed event JSON: `python -m tools.event_dictionary FILE`.

The samples are made here, as no event of a real server may be part of a program. They have what
events of all servers have in common: the keys that the specification names, in canonical order, and
random text, ids, hashes and signatures in the places of values. So the dictionary knows the former
by heart, and how frequent the characters of the latter are.

A dictionary that was released is never changed: the events of all databases depend on it. A better
one gets the next version (`homeserver/storage/rooms/event_json.py`).
"""

import base64
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

DICTIONARY_BYTES = 4_096
SAMPLES = 20_000
LETTERS = "etaoinshrdlcumwfgypbvk" + "etaoinshrdl" * 2 + "etaoin" * 2
Content = dict[str, Any]


class Samples:
    """Events of all kinds, the frequent ones more often."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._words = [self._word() for _ in range(3_000)]

    def event(self) -> bytes:
        """An event in canonical JSON."""
        kinds: dict[Callable[[], tuple[str, Content, str | None]], int] = {
            self._message: 40,
            self._encrypted: 40,
            self._reaction: 8,
            self._redaction: 3,
            self._member: 9,
        }
        (make,) = self._chance.choices(list(kinds), list(kinds.values()))
        kind, content, state_key = make()
        server = self._server()
        event: dict[str, Any] = {
            "auth_events": [self._id() for _ in range(self._chance.choice((2, 2, 3)))],
            "content": content,
            "depth": self._chance.randrange(1, 100_000),
            "hashes": {"sha256": self._base64(32)},
            "origin_server_ts": self._chance.randrange(1_600_000_000_000, 1_900_000_000_000),
            "prev_events": [self._id()],
            "room_id": self._room(),
            "sender": self._user(server),
            "signatures": {server: {f"ed25519:{self._key()}": self._base64(64)}},
            "type": kind,
        }
        if state_key is not None:
            event["state_key"] = state_key
        if kind == "m.room.redaction":
            event["redacts"] = self._id()
        return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def _message(self) -> tuple[str, Content, None]:
        content: Content = {"body": self._text(), "msgtype": "m.text"}
        form = self._chance.random()
        if form < 0.5:
            content["m.mentions"] = {}
        if 0.3 < form < 0.5:
            content["m.mentions"] = {"user_ids": [self._user(self._server())]}
            content["m.relates_to"] = {"m.in_reply_to": {"event_id": self._id()}}
        elif 0.5 < form < 0.6:
            content["format"] = "org.matrix.custom.html"
            content["formatted_body"] = f"<p>{self._text()} <strong>{self._text()}</strong></p>"
        elif 0.6 < form < 0.65:
            content["m.relates_to"] = {
                "event_id": self._id(),
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": self._id()},
                "rel_type": "m.thread",
            }
        elif 0.65 < form < 0.7:
            content["m.new_content"] = dict(content)
            content["m.relates_to"] = {"event_id": self._id(), "rel_type": "m.replace"}
        elif 0.7 < form < 0.75:
            content = {
                "body": f"{self._word()}.jpg",
                "info": {"h": 1080, "mimetype": "image/jpeg", "size": 123_456, "w": 1920},
                "msgtype": "m.image",
                "url": f"mxc://{self._server()}/{self._base64(18)}",
            }
        elif form > 0.97:
            content["msgtype"] = self._chance.choice(("m.notice", "m.emote"))
        return "m.room.message", content, None

    def _encrypted(self) -> tuple[str, Content, None]:
        content: Content = {
            "algorithm": "m.megolm.v1.aes-sha2",
            "ciphertext": self._base64(self._chance.randrange(100, 500)).replace("-", "+"),
            "device_id": self._device(),
            "sender_key": self._base64(32),
            "session_id": self._base64(32),
        }
        if self._chance.random() < 0.2:
            content["m.relates_to"] = {"m.in_reply_to": {"event_id": self._id()}}
        return "m.room.encrypted", content, None

    def _reaction(self) -> tuple[str, Content, None]:
        relation = {"event_id": self._id(), "key": "👍️", "rel_type": "m.annotation"}
        return "m.reaction", {"m.relates_to": relation}, None

    def _redaction(self) -> tuple[str, Content, None]:
        return "m.room.redaction", {"redacts": self._id()}, None

    def _member(self) -> tuple[str, Content, str]:
        content: Content = {
            "displayname": self._text()[:15],
            "membership": self._chance.choice(("join", "join", "invite", "leave")),
        }
        if self._chance.random() < 0.5:
            content["avatar_url"] = f"mxc://{self._server()}/{self._base64(18)}"
        return "m.room.member", content, self._user(self._server())

    def _word(self) -> str:
        return "".join(self._chance.choices(LETTERS, k=self._chance.randint(1, 9)))

    def _text(self) -> str:
        words = self._chance.choices(self._words, k=self._chance.randint(1, 30))
        return " ".join(words)[: self._chance.randint(5, 160)].capitalize()

    def _base64(self, size: int) -> str:
        return base64.urlsafe_b64encode(self._chance.randbytes(size)).rstrip(b"=").decode()

    def _id(self) -> str:
        return f"${self._base64(32)}"

    def _room(self) -> str:
        if self._chance.random() < 0.5:
            return f"!{self._base64(32)}"
        return f"!{self._base64(13)}:{self._server()}"

    def _server(self) -> str:
        host = self._chance.choice(("", "matrix.", "chat."))
        return f"{host}{self._word()}.{self._chance.choice(('org', 'com', 'de', 'net'))}"

    def _user(self, server: str) -> str:
        return f"@{self._word()}:{server}"

    def _device(self) -> str:
        return "".join(self._chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=10))

    def _key(self) -> str:
        return self._chance.choice(("auto", f"a_{self._base64(3)}"))


def main() -> int:
    """Train a dictionary and write it to the file that was named; the exit status is 0."""
    (path,) = sys.argv[1:]
    samples = Samples(1)
    events = [samples.event() for _ in range(SAMPLES)]
    dictionary = zstandard.train_dictionary(DICTIONARY_BYTES, events, level=3)
    Path(path).write_bytes(dictionary.as_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
