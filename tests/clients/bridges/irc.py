"""An IRC network: ngircd, a server of Debian, and a client for the people there."""

import asyncio
import contextlib
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.program import Program

NGIRCD = shutil.which("ngircd") or shutil.which("ngircd", path="/usr/sbin")
WAIT_SECONDS = 30.0
CONFIGURATION = """\
[Global]
Name = irc.example.org
Info = test
AdminInfo1 = test
Listen = 127.0.0.1
Ports = {port}
MotdPhrase = welcome
[Limits]
ConnectRetry = 60
MaxConnectionsIP = 0
MaxNickLength = 30
MaxPenaltyTime = 0
[Options]
DNS = no
Ident = no
PAM = no
SyslogFacility = user
"""


class Ngircd(Program):
    """One IRC server."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._configuration = directory / "ngircd.conf"
        self._configuration.write_text(CONFIGURATION.format(port=self.port))

    @property
    def command(self) -> list[str]:
        """It stays in the foreground."""
        assert NGIRCD is not None
        return [NGIRCD, "--nodaemon", "--config", str(self._configuration)]

    def is_responding(self) -> bool:
        """Whether it accepts connections."""
        return accepts(self.port)


class Line(NamedTuple):
    """A message on IRC, from a nickname to a channel or to another nickname."""

    nick: str
    target: str
    text: str


class IrcUser:
    """A person with an IRC client; `heard` are all messages, in their order."""

    def __init__(self, nick: str) -> None:
        self.nick = nick
        self.heard: list[Line] = []
        self._names: dict[str, set[str]] = {}
        self._news = asyncio.Event()

    async def connect(self, port: int) -> None:
        """Connect, and wait until the server knows the nickname."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._welcomed = False
        self._reading = asyncio.create_task(self._read())
        self._send(f"NICK {self.nick}", f"USER {self.nick} 0 * :{self.nick}")
        await self.until(lambda: self._welcomed, "the welcome")

    async def close(self) -> None:
        """Leave the network."""
        self._reading.cancel()
        self._writer.transport.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def join(self, channel: str) -> None:
        """Join a channel, which exists from then on."""
        self._send(f"JOIN {channel}")
        await self.sees(self.nick, channel)

    async def sees(self, nick: str, channel: str) -> None:
        """Wait until somebody is in a channel."""
        await self.until(lambda: nick in self._names.get(channel, ()), f"{nick} in {channel}")

    async def loses(self, nick: str, channel: str) -> None:
        """Wait until somebody has left a channel."""
        await self.until(lambda: nick not in self._names[channel], f"{nick} to leave {channel}")

    def say(self, target: str, text: str) -> None:
        """Send a message to a channel or a person."""
        self._send(f"PRIVMSG {target} :{text}")

    def said_by(self, nick: str) -> list[str]:
        """The messages of somebody, in their order."""
        return [line.text for line in self.heard if line.nick == nick]

    async def hears(self, nick: str, *texts: str) -> None:
        """Wait until somebody has said exactly this, since the beginning."""
        await self.until(lambda: len(self.said_by(nick)) >= len(texts), f"{texts} of {nick}")
        assert self.said_by(nick) == list(texts)

    async def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something was seen."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not seen():
            assert not self._reading.done(), self._reading
            left = deadline - time.monotonic()
            assert left > 0, f"{self.nick} waited in vain for {what}; heard {self.heard}"
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _read(self) -> None:
        while line := await self._reader.readline():
            self._receive(line.decode(errors="replace").rstrip("\r\n"))
            self._news.set()

    def _receive(self, line: str) -> None:
        head, _, trailing = line.partition(" :")
        source, *words = head.split() if head.startswith(":") else ("", *head.split())
        nick = source[1:].partition("!")[0]
        words += [trailing] if trailing else []
        match words:
            case ["PING", token]:
                self._send(f"PONG :{token}")
            case ["001", *_]:
                self._welcomed = True
            case ["PRIVMSG" | "NOTICE", target, text] if "!" in source:
                self.heard.append(Line(nick, target, text))
            case ["JOIN", channel, *_]:
                self._names.setdefault(channel, set()).add(nick)
            case ["353", _, _, channel, names]:
                here = self._names.setdefault(channel, set())
                here |= {name.lstrip("@+") for name in names.split()}
            case ["PART", channel, *_]:
                self._names[channel].discard(nick)
            case ["QUIT", *_]:
                for channel_names in self._names.values():
                    channel_names.discard(nick)

    def _send(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())


def accepts(port: int) -> bool:
    """Whether something listens on a port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
