"""Mails about unread messages: a group whose members are all away, each with a mailbox.

The mail server is a process that accepts everything, on the core of the load.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import sending
from benchmarks.load.figures import Figure
from benchmarks.load.population import CLIENT, Account, Population, post
from benchmarks.load.processes import cpu_seconds
from tests.support.process import CHECKOUT

MEMBERS = 100
SENDERS = 10
MESSAGES = 20  # that a mail is about
SECONDS = 5.0
DELAY_SECONDS = 12.0  # longer than the load
POLL_SECONDS = 0.005


@contextlib.contextmanager
def mail_process() -> Iterator[Path]:
    """A mail server in a process of its own, and its directory; see `tests.crash.mail_process`."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "tests.crash.mail_process", name]
        process = subprocess.Popen(command, cwd=CHECKOUT)
        try:
            while not (Path(name) / "port").exists():
                time.sleep(POLL_SECONDS)
            yield Path(name)
        finally:
            process.kill()
            process.wait()


def overrides(mails: Path) -> dict[str, Any]:
    """The settings of a server that sends its mails to this one."""
    return {
        "log": {"level": "WARN"},
        "rate_limits": {"enabled": False},
        "public_baseurl": "http://localhost",
        "email": {
            "smtp_host": "127.0.0.1",
            "smtp_port": int((mails / "port").read_text()),
            "from": "noreply@example.org",
            "tls": "off",
            "notification_delay": DELAY_SECONDS,
        },
    }


def measure(population: Population, mails: Path) -> list[Figure]:
    """The figures of the part."""
    members = population.accounts(MEMBERS)
    busy, quiet = [population.group(members) for _ in range(2)]
    cases = [(member, busy) for member in members[:SENDERS]]
    plain = sending.send(population, cases, population.message, SECONDS).cpu_seconds
    _read(population, members, busy)
    for member in members:
        _add_address(population, member)
    population.fetch([_pusher(member) for member in members])
    waiting = sending.send(population, cases, population.message, SECONDS).cpu_seconds
    _read(population, members, busy)
    each, rate = _mailed(population, members, quiet, mails)
    return [
        Figure("a message without pushers, 10 senders, CPU", plain * 1e6, "µs"),
        Figure("the same to 100 mailboxes that wait", (waiting / plain - 1) * 100, "%"),
        Figure(
            f"mails about {MESSAGES} messages", rate, "/s", note=f"{each * 1e3:.1f} ms of CPU each"
        ),
    ]


def _mailed(
    population: Population, members: list[Account], room: str, mails: Path
) -> tuple[float, float]:
    """CPU seconds of a mail, and mails a second."""
    pids = population.server.process_ids()
    for _ in range(MESSAGES):
        population.fetch([population.message(members[0], room)], 1)
    cpu = cpu_seconds(pids)
    first: float | None = None
    while (count := (mails / "mails").read_text().count("\n")) < MEMBERS - 1:
        if count and first is None:
            cpu, first = cpu_seconds(pids), time.perf_counter()
        time.sleep(POLL_SECONDS)
    elapsed = time.perf_counter() - (first or 0.0)
    return (cpu_seconds(pids) - cpu) / (MEMBERS - 1), (MEMBERS - 1) / elapsed


def _read(population: Population, members: list[Account], room: str) -> None:
    event_id = population.fetch([population.message(members[0], room)])[0]["event_id"]
    path = f"{CLIENT}/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}"
    population.fetch([post(path, member.token, {}) for member in members])


def _add_address(population: Population, member: Account) -> None:
    config = str(population.server.config_path)
    command = [sys.executable, "-m", "homeserver", "user", "add-threepid", "--config", config]
    command += [member.user_id, "--email", _address(member)]
    subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)


def _address(member: Account) -> str:
    return f"{member.user_id[1:].partition(':')[0]}@example.com"


def _pusher(member: Account) -> bytes:
    body = {
        "kind": "email",
        "app_id": "m.email",
        "pushkey": _address(member),
        "app_display_name": "Mails",
        "device_display_name": _address(member),
        "lang": "en",
        "data": {},
    }
    return post(f"{CLIENT}/pushers/set", member.token, body)
