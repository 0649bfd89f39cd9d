"""Processes for what is too dangerous for this one: a few, started when they are needed.

What strangers send may hit a defect of a decoder, need gigabytes, or take hours. So another program
works on it, with limits that it sets itself. A job occupies a thread, which writes it to the
process and waits for the result. A process that takes too long, or ends, costs its job and is
replaced. Idle ones end after a minute; if this server is killed, they end with their input.
"""

import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homeserver.concurrency.child_processes import lower_priority, read_line, start_program
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.protocol.errors import Unavailable

WALL_SECONDS = 30.0
MAX_JOBS = 200  # then a process is replaced: decoders leak
IDLE_SECONDS = 60.0
MAX_RESULT = 262_144  # bytes


class WorkerFailed(Exception):
    """The process ended, or took too long."""


class WorkerProcesses:
    """At most `size` processes, which run a `program` with `arguments` for one purpose.

    The program is a script that imports nothing of this server. Each line of its input is a job, a
    JSON object, which may be followed by some content; each line of its output is a result, another
    object.
    """

    def __init__(
        self, reactor: Any, purpose: str, program: Path, arguments: Sequence[str], *, size: int
    ) -> None:
        self._purpose = purpose
        self._pool = ThreadPool(reactor, purpose, size=size, max_waiting=10_000)
        self._command = [str(program), *arguments]
        self._idle: deque[_Worker] = deque()
        self._all: set[_Worker] = set()
        self._is_stopped = False
        clock: Clock = reactor
        self._end_idle = PeriodicTask(
            clock, IDLE_SECONDS, self._end_unused, name=f"the end of idle processes for {purpose}"
        )

    def start(self) -> None:
        """Have idle processes end after a while."""
        self._end_idle.start()

    async def stop(self) -> None:
        """End all processes, busy ones too."""
        self._is_stopped = True
        await self._end_idle.stop()
        for each in list(self._all):
            each.kill()
        self._idle.clear()
        # Their threads notice it; processes that were idle have none.
        await self._pool.run(self._reap)

    async def run(self, job: dict[str, Any], content: bytes = b"") -> dict[str, Any]:
        """The result of a job. Raises `WorkerFailed` or `Unavailable`."""
        return await self._pool.run(self._work, job, content)

    def _work(self, job: dict[str, Any], content: bytes) -> dict[str, Any]:
        process = self._take()
        try:
            result = process.ask(job, content)
        except BaseException:
            self._end(process)
            raise
        if process.jobs >= MAX_JOBS or result.get("error") == "too_large" or self._is_stopped:
            self._end(process)
        else:
            process.idle_since = time.monotonic()
            self._idle.append(process)
        return result

    def _take(self) -> "_Worker":
        try:
            return self._idle.pop()
        except IndexError:
            process = self._start()
            self._all.add(process)
            if self._is_stopped:
                process.kill()
            return process

    def _start(self) -> "_Worker":
        try:
            return _Worker(self._command)
        except OSError as error:
            raise Unavailable(f"The server has no process for {self._purpose}") from error

    def _end(self, process: "_Worker") -> None:
        process.kill()
        process.wait()
        self._all.discard(process)

    def _end_unused(self) -> Any:
        return self._pool.run(self._end_unused_in_thread)

    def _end_unused_in_thread(self) -> None:
        now = time.monotonic()
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            try:
                process = self._idle.popleft()
            except IndexError:
                return
            self._end(process)

    def _reap(self) -> None:
        for each in list(self._all):
            each.wait()


class _Worker:
    """One process; `jobs` is the number of its jobs so far."""

    def __init__(self, command: list[str]) -> None:
        self.jobs = 0
        self.idle_since = 0.0
        self._process = start_program(command)
        lower_priority(self._process.pid)

    def ask(self, job: dict[str, Any], content: bytes) -> dict[str, Any]:
        self.jobs += 1
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "the input is a pipe"
        assert stdout is not None, "the output is a pipe"
        try:
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.write(content)
            stdin.flush()
            line = read_line(stdout.fileno(), WALL_SECONDS, MAX_RESULT)
            result = json.loads(line)
        except (OSError, ValueError) as error:
            raise WorkerFailed(f"the process failed: {error}") from error
        if not isinstance(result, dict):
            raise WorkerFailed("the process wrote garbage")
        return result

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was not written is of no use any more
