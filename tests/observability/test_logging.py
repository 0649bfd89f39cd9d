"""Log lines: one per event, with the needed fields, without secrets."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, PredicateResult
from twisted.python.failure import Failure

from homeserver.observability.logging import (
    LineObserver,
    Output,
    StandardLogBridge,
    render_json,
    render_text,
    wanted,
)


def emit(pattern: str, **fields: Any) -> dict[str, Any]:
    """The event that a module's logger makes of a call."""
    events: list[dict[str, Any]] = []
    Logger(namespace="homeserver.web", observer=events.append).emit(
        LogLevel.info, pattern, **fields
    )
    events[0]["log_time"] = 0.0625
    return events[0]


def failure() -> Failure:
    try:
        raise ValueError("postgresql://me:swordfish@host/db")
    except ValueError:
        return Failure()


def test_text_line_has_time_level_namespace_and_message() -> None:
    """A reader sees time, level, module and message."""
    line = render_text(emit("{user_id} joined", user_id="@a:b"))

    assert line == "1970-01-01T00:00:00.062Z INFO     homeserver.web: @a:b joined\n"


def test_json_line_has_the_named_fields_beside_the_message() -> None:
    """A log store can search by request and by user."""
    event = emit("{request_id} took {seconds}", request_id="r1", seconds=0.5, other=object())

    assert json.loads(render_json(event)) == {
        "time": "1970-01-01T00:00:00.062Z",
        "level": "INFO",
        "logger": "homeserver.web",
        "message": "r1 took 0.5",
        "request_id": "r1",
        "seconds": 0.5,
    }


@pytest.mark.parametrize(
    "text",
    [
        "GET /sync?access_token=swordfish&since=1",
        "Authorization: Bearer swordfish",
        "Sec-WebSocket-Protocol: m.json, m.token.swordfish",
        "cannot connect to postgresql://me:swordfish@host/db",
        "host=/run password=swordfish",
    ],
)
def test_secrets_are_hidden_in_messages_and_fields(text: str) -> None:
    """A reader of the log cannot act as its users."""
    event = emit("{text}", text=text, token="swordfish")

    for line in (render_text(event), render_json(event)):
        assert "swordfish" not in line
        assert "[hidden]" in line


def test_ordinary_addresses_stay_readable() -> None:
    """Hiding secrets must not hide the URL that went wrong."""
    text = "GET https://example.org:8448/_matrix/x?since=1 from @a:b.org"

    assert text in render_text(emit("{text}", text=text))


def test_line_breaks_in_a_message_cannot_forge_a_line() -> None:
    """Data of a client cannot look like another entry."""
    line = render_text(emit("{name}", name="x\n1970 INFO forged\r\x1b[2J\u2028"))

    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\\n1970" in line


def test_failure_is_logged_with_its_traceback_below_its_line() -> None:
    """A defect can be found from its traceback."""
    event = emit("broken")
    event["log_failure"] = failure()

    assert "    builtins.ValueError" in render_text(event)
    assert "ValueError" in json.loads(render_json(event))["traceback"]
    assert "swordfish" not in render_text(event) + render_json(event)


def test_log_file_is_opened_again_after_it_was_moved(tmp_path: Path) -> None:
    """A rotating program moves the file and sends SIGHUP; nothing is lost."""
    path = tmp_path / "logs" / "server.log"
    output = Output(path)
    observer = LineObserver(output, render_text)
    observer(emit("before"))
    path.rename(tmp_path / "old.log")

    observer(emit("between"))
    output.reopen()
    observer(emit("after"))

    assert "after" in path.read_text()
    assert path.read_text().count("\n") == 1
    assert (tmp_path / "old.log").read_text().count("\n") == 2
    output._stream.close()


def test_a_line_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the log, not the server."""
    with open(os.devnull) as unwritable:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", unwritable)

        LineObserver(Output(None), render_text)(emit("x"))


def test_records_of_libraries_arrive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of psycopg and others in Python's logging are not lost, nor their tracebacks."""
    events: list[tuple[str, LogLevel, str, bool]] = []
    monkeypatch.setattr(
        Logger,
        "emit",
        lambda self, level, _, text, log_failure=None: events.append(
            (self.namespace, level, text, log_failure is not None)
        ),
    )
    cause = failure()
    trace = (type(cause.value), cause.value, None)
    record = logging.LogRecord("psycopg", logging.WARNING, "", 0, "%d lost", (3,), None)
    broken = logging.LogRecord("psycopg", logging.ERROR, "", 0, "oh", (), trace)

    StandardLogBridge().emit(record)
    StandardLogBridge().emit(broken)

    assert events == [
        ("psycopg", LogLevel.warn, "3 lost", False),
        ("psycopg", LogLevel.error, "oh", True),
    ]


def test_nothing_is_logged_twice() -> None:
    """A reader of the log finds one line for each event, and every error."""

    def is_written(level: LogLevel, namespace: str) -> bool:
        event = {"log_level": level, "log_namespace": namespace}
        return wanted("INFO")(event) is not PredicateResult.no

    assert is_written(LogLevel.info, "homeserver.web.listeners")
    assert not is_written(LogLevel.debug, "homeserver.web.listeners")
    assert not is_written(LogLevel.info, "log_legacy")
    assert is_written(LogLevel.critical, "log_legacy")
