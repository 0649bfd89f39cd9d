"""Deadlines: many keys on one timer."""

from twisted.internet.task import Clock

from homeserver.concurrency.deadlines import Deadlines


class Recorder:
    """Deadlines on a clock, and the keys that became due, with their times."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.due: list[tuple[str, float]] = []
        self.deadlines = Deadlines(self.clock, self.note)

    def note(self, key: str) -> None:
        self.due.append((key, self.clock.seconds()))

    def run(self, seconds: int) -> None:
        for _ in range(seconds * 2):
            self.clock.advance(0.5)


def test_keys_come_up_at_their_time() -> None:
    """No user is shown as online for longer than they are."""
    recorder = Recorder()
    recorder.deadlines.set("later", 20.0)
    recorder.deadlines.set("soon", 10.0)

    recorder.run(30)

    assert recorder.due == [("soon", 10.0), ("later", 20.0)]
    assert len(recorder.deadlines) == 0


def test_earlier_deadline_takes_the_place_of_a_later_one() -> None:
    """A device that disconnects shortens its user's time."""
    recorder = Recorder()
    recorder.deadlines.set("alice", 20.0)
    recorder.deadlines.set("alice", 5.0)

    recorder.run(30)

    assert recorder.due == [("alice", 5.0)]


def test_later_deadline_waits_for_the_first() -> None:
    """Postponing is free; the callback of an early deadline sets the next one."""
    recorder = Recorder()
    recorder.deadlines.set("alice", 5.0)
    recorder.deadlines.set("alice", 20.0)

    recorder.run(30)

    assert recorder.due == [("alice", 5.0)]


def test_thousands_share_one_timer() -> None:
    """Ten thousand users online cost the reactor no more than one."""
    recorder = Recorder()
    for number in range(10_000):
        recorder.deadlines.set(f"user{number}", 100.0 + number / 10_000)

    assert len(recorder.clock.getDelayedCalls()) == 1
    recorder.run(99)
    recorder.run(3)

    assert len(recorder.due) == 10_000
    assert len({at for _, at in recorder.due}) <= 3


def test_deadline_set_while_others_come_up_is_kept() -> None:
    """A callback may set a later deadline for its key."""
    recorder = Recorder()
    again = Deadlines(recorder.clock, lambda key: again.set(key, 50.0))
    again.set("alice", 10.0)

    recorder.run(20)

    assert len(again) == 1
    assert len(recorder.clock.getDelayedCalls()) == 1


def test_nothing_comes_up_after_the_stop() -> None:
    """A server that stops does not report that all its users went offline."""
    recorder = Recorder()
    recorder.deadlines.set("alice", 5.0)

    recorder.deadlines.stop()
    recorder.deadlines.set("bob", 5.0)

    recorder.run(10)
    assert recorder.due == []
    assert recorder.clock.getDelayedCalls() == []


def test_deadline_that_fails_takes_no_other_with_it() -> None:
    """One user's error does not leave all others online permanently."""
    clock, due = Clock(), []

    def come_up(key: str) -> None:
        due.append(key)
        if key == "bad":
            raise ValueError(key)

    deadlines = Deadlines(clock, come_up)
    for key, at in (("bad", 1.0), ("good", 1.0), ("later", 5.0)):
        deadlines.set(key, at)

    clock.pump([1.0] * 8)

    assert due == ["bad", "good", "later"]
