"""The agent's state machine, driven by hand: the test is its brokers, its model and its clock."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.wire import received
from zstreamer import codec
from zstreamer.config import WorkerConfig
from zstreamer.errors import Code
from zstreamer.wire import protocol
from zstreamer.wire.link import Close, Connect, LinkState, Send
from zstreamer.wire.protocol import Fate, Flag, WorkerState
from zstreamer.worker import pipe
from zstreamer.worker.actions import Exit, KillChild, StartChild, Tell
from zstreamer.worker.backlog import LOOK, MAX_LOOK
from zstreamer.worker.core import BEAT, WorkerCore
from zstreamer.worker.link import BEGUN_HOLD, WorkerLink

MiB = 1024 * 1024
WELCOME = protocol.Welcome(1, False, [], 8, 64 * MiB, 64 * MiB)


class Bench:
    """A worker core; the test sits where its driver, its brokers and its model would.

    Attributes:
        said: what it has sent to each broker, oldest first; emptied by the tests.
        told: what it has written to its model; emptied by the tests.
        did: everything else that it wanted done.
    """

    def __init__(self, *brokers: str, **config: object) -> None:
        self.now = 100.0
        given: dict[str, Any] = {"batch_size": 4, **config}
        settings = WorkerConfig("a:b", brokers or ("tcp://broker:1",), **given)
        self.core = WorkerCore(settings, 7, self.now, lambda: 1.0)
        self.links = self.core.links
        self.said: dict[WorkerLink, list[Any]] = {link: [] for link in self.links}
        self.told: list[pipe.PipeMessage] = []
        self.did: list[object] = []
        self.turn()

    @property
    def link(self) -> WorkerLink:
        return self.links[0]

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, then do what the driver does."""
        self.now += seconds
        while actions := self.core.poll(self.now):
            for action in actions:
                match action:
                    case Send(link, frames):
                        self.said[link].append(protocol.decode(received(frames)))
                    case Tell(message):
                        self.told.append(message)
                    case _:
                        self.did.append(action)

    def connect(self, link: WorkerLink | None = None) -> None:
        link = link or self.link
        while link.state is not LinkState.CONNECTING:
            self.turn(0.01)
        self.core.on_connected(self.now, link)
        self.hear(WELCOME, link)

    def hear(
        self, message: protocol.Message | protocol.Frames, link: WorkerLink | None = None
    ) -> None:
        frames = message if isinstance(message, list) else protocol.plain(message)
        self.core.on_message(self.now, link or self.link, frames)
        self.turn()

    def work(
        self,
        *tickets: int,
        budget: int = 20_000,
        flags: int = 0,
        payload: protocol.Slot = b"\x01",
        link: WorkerLink | None = None,
    ) -> None:
        count = len(tickets)
        frames = protocol.work(flags, list(tickets), [budget] * count, [payload] * count, [])
        self.hear(frames, link)

    def child(self, message: pipe.PipeMessage) -> None:
        self.core.on_child(self.now, message)
        self.turn()

    def boot(self, has_cost: bool = False) -> None:
        self.child(pipe.Booted(has_cost))

    def plan(self) -> pipe.Plan:
        """Return the latest plan."""
        return [m for m in self.told if isinstance(m, pipe.Plan)][-1]

    def claim(self) -> list[int]:
        """Have the model begin what is planned."""
        plan = self.plan()
        assert plan.ids
        self.child(pipe.Claim(plan.serial, plan.ids))
        return plan.ids

    def done(self, ids: list[int], seconds: float = 0.0) -> None:
        self.child(pipe.Done(ids, [codec.encode("out")] * len(ids), seconds))

    def take(self, kind: type[protocol.Message], link: WorkerLink | None = None) -> list[Any]:
        """Return the messages of a kind, and forget all that was said."""
        said, self.said[link or self.link] = self.said[link or self.link], []
        return [message for message in said if isinstance(message, kind)]

    def fates(self, link: WorkerLink | None = None) -> dict[int, object]:
        """Return the code of each ticket reported as done; "out" where it has an output."""
        return {
            ticket: slot[0] if isinstance(slot, list) else codec.decode(slot)
            for report in self.take(protocol.Report, link)
            for ticket, slot in zip(report.done, report.slots, strict=True)
        }

    def did_last(self, kind: type) -> bool:
        return isinstance(self.did[-1], kind)


@pytest.fixture
def bench():
    """A warm worker of batches of 4, connected to one broker."""
    bench = Bench()
    bench.connect()
    bench.boot()
    bench.said[bench.link].clear()
    return bench


# More that is coming


def test_a_batch_of_which_more_is_coming_begins_with_the_last_of_it():
    bench = Bench(batch_size=8, max_latency=0.5)
    bench.connect()
    bench.boot()
    bench.work(1, 2, flags=Flag.MORE)
    assert not [m for m in bench.told if isinstance(m, pipe.Plan)]
    bench.work(3, flags=Flag.GO)
    assert len(bench.claim()) == 3


def test_the_word_that_no_more_is_coming_needs_no_items():
    bench = Bench(batch_size=8, max_latency=0.5)
    bench.connect()
    bench.boot()
    bench.work(1, 2, flags=Flag.MORE)
    bench.work(flags=Flag.GO)
    assert len(bench.claim()) == 2


def test_a_batch_waits_for_what_does_not_come_no_longer_than_it_may():
    bench = Bench(batch_size=8, max_latency=0.5)
    bench.connect()
    bench.boot()
    bench.work(1, 2, flags=Flag.MORE)
    assert bench.core.wake_at() <= bench.now + 0.5
    bench.turn(0.51)
    assert len(bench.claim()) == 2


def test_what_comes_before_a_batch_has_begun_that_is_to_go_holds_the_next_one():
    bench = Bench(batch_size=8, max_latency=0.5)
    bench.connect()
    bench.boot()
    frames = [
        protocol.work(flags, [ticket], [20_000], [b"\x01"], [])
        for ticket, flags in ((1, Flag.GO), (2, Flag.MORE))
    ]
    for each in frames:  # both are read in one turn
        bench.core.on_message(bench.now, bench.link, each)
    bench.turn()
    assert len(bench.claim()) == 2
    bench.told.clear()
    bench.work(3, flags=Flag.MORE)
    assert not [m for m in bench.told if isinstance(m, pipe.Plan)]
    bench.work(flags=Flag.GO)
    assert len(bench.plan().ids) == 1


def test_a_broker_that_is_lost_leaves_no_word_behind_for_the_items_of_another():
    bench = Bench("tcp://a:1", "tcp://b:1", batch_size=8, max_latency=0.5)
    one, other = bench.links
    bench.connect(one)
    bench.connect(other)
    bench.boot()
    bench.work(1, link=other, flags=Flag.MORE)
    bench.work(2, link=one, flags=Flag.MORE)
    bench.core.on_lost(bench.now, one)
    bench.turn()
    assert len(bench.claim()) == 1


def test_a_full_batch_waits_for_nothing():
    bench = Bench(batch_size=2, max_latency=0.5)
    bench.connect()
    bench.boot()
    bench.work(1, 2, flags=Flag.MORE)
    assert len(bench.claim()) == 2


# Sessions


def test_a_worker_connects_and_loads_its_model_at_the_same_time():
    bench = Bench("tcp://a:1", "tcp://b:1")
    assert [type(action) for action in bench.did] == [Connect, Connect, StartChild]


def test_hello_says_what_the_worker_serves_and_state_follows_welcome():
    bench = Bench(model="bert", batch_size=32, max_latency=0.5)
    bench.connect()
    hello, state = bench.said[bench.link]
    said = {"model": "bert", "batch_size": 32, "pool": 0, "patience": 60.5, "max_latency": 0.5}
    assert hello == protocol.Hello(2, 7, {"extensions": ["traces"], **said})
    assert state == protocol.State(WorkerState.BOOTING, "")
    bench.boot()
    assert bench.said[bench.link][-1] == protocol.State(WorkerState.WARM, "")


def test_a_silent_second_ends_with_a_ping(bench):
    bench.turn(BEAT / 2)
    bench.work(1)
    bench.said[bench.link].clear()
    assert bench.core.wake_at() <= bench.now + BEAT
    bench.turn(BEAT)
    assert bench.take(protocol.Ping) == [protocol.Ping()]
    assert bench.core.wake_at() <= bench.now + BEAT


def test_a_broker_that_refuses_is_asked_again_later():
    bench = Bench()
    bench.core.on_connected(bench.now, bench.link)
    bench.hear(protocol.Refuse([505, "another version", {}]))
    assert bench.did_last(Close)
    assert bench.link.refusal.message == "another version"
    bench.turn(1.0)
    assert bench.did_last(Connect)


def test_bytes_that_are_no_message_end_the_connection(bench):
    bench.hear([b"nonsense"])
    assert bench.did_last(Close)
    bench.connect()
    bench.work(1)
    bench.done(bench.claim())
    assert bench.fates() == {1: "out"}


# Items


def test_items_go_to_the_model_as_they_come_and_are_planned(bench):
    bench.work(1, 2)
    items, plan = bench.told
    assert items == pipe.Items([1, 2], [b"\x01"] * 2, False)
    assert plan == pipe.Plan(1, [1, 2])


def test_a_plan_grows_until_it_is_claimed_but_not_beyond_the_batch(bench):
    bench.work(1)
    bench.work(2, 3, 4, 5, 6)
    assert bench.plan().ids == [1, 2, 3, 4]
    bench.claim()
    assert bench.plan().ids == [5, 6]


def test_what_has_begun_is_reported_soon_and_outcomes_when_they_come(bench):
    bench.work(1, 2)
    bench.said[bench.link].clear()
    ids = bench.claim()
    assert not bench.take(protocol.Report)
    bench.turn(bench.core.wake_at() - bench.now)
    (report,) = bench.take(protocol.Report)
    assert (report.begun, report.done) == ([1, 2], [])
    bench.done(ids, seconds=0.030)
    (report,) = bench.take(protocol.Report)
    assert (report.begun, report.done) == ([], [1, 2])
    assert report.beta + 2 * report.alpha == pytest.approx(30_000, rel=0.01)


def test_a_batch_is_timed_although_the_next_one_has_begun_before_its_answers_come(bench):
    bench.work(*range(1, 7))
    first = bench.claim()
    bench.claim()
    bench.done(first, seconds=0.030)
    assert bench.core.backlog.time(4) == pytest.approx(0.030)


def test_what_begins_as_the_batch_before_ends_is_reported_with_its_outcomes(bench):
    bench.work(*range(1, 7))
    first = bench.claim()
    bench.turn(BEGUN_HOLD)
    bench.said[bench.link].clear()
    bench.claim()
    bench.done(first)
    (report,) = bench.take(protocol.Report)
    assert (report.begun, report.done) == ([5, 6], [1, 2, 3, 4])


def test_work_that_comes_before_the_model_is_ready_goes_back():
    bench = Bench()
    bench.connect()
    bench.work(1)
    assert bench.fates() == {1: Fate.RETURNED}
    assert bench.told == []


def test_items_that_run_only_once_are_marked_for_the_model(bench):
    bench.work(1, flags=Flag.ONCE)
    assert bench.told[0] == pipe.Items([1], [b"\x01"], True)


def test_a_group_of_suspects_is_planned_alone_and_before_others(bench):
    bench.work(1)
    bench.work(2, 3, flags=Flag.ALONE)
    assert bench.plan().ids == [2, 3]
    bench.claim()
    assert bench.plan().ids == [1]


def test_suspects_whose_costs_are_not_known_yet_wait_for_them(bench):
    bench.boot(has_cost=True)
    bench.connect()
    bench.told.clear()
    bench.work(1, 2, flags=Flag.ALONE)
    assert [type(message) for message in bench.told] == [pipe.Items]
    [items] = bench.told
    bench.child(pipe.Prepared(items.ids[:1], [1.0]))
    assert len(bench.told) == 1
    bench.child(pipe.Prepared(items.ids[1:], [1.0]))
    assert bench.plan().ids == items.ids


def test_an_item_that_cannot_be_decoded_errs_and_is_not_planned_again(bench):
    bench.work(1, 2)
    error = [Code.BAD_REQUEST, "no payload", {}]
    bench.child(pipe.Done([1], [error], 0.0))
    assert bench.fates() == {1: Code.BAD_REQUEST}
    assert bench.plan().ids == [2]


def test_a_large_payload_is_put_together_for_the_model(bench):
    for _ in range(2):
        bench.hear(protocol.part(3, bytes(MiB)))
    assert bench.take(protocol.PartOk) == [protocol.PartOk(3)] * 2
    bench.work(1, payload=3)
    assert bench.told[0] == pipe.Items([1], [bytes(2 * MiB)], False)


@pytest.mark.parametrize("parts", [0, 2])
def test_a_payload_that_is_not_there_or_too_large_is_that_items_error(parts):
    bench = Bench(max_payload=MiB)
    bench.connect()
    bench.boot()
    for _ in range(parts):
        bench.hear(protocol.part(3, bytes(MiB)))
    bench.work(1, payload=3)
    assert bench.fates() == {1: Code.TOO_LARGE if parts else Code.BAD_REQUEST}


def test_a_large_output_goes_in_parts(bench):
    bench.work(1)
    ids = bench.claim()
    bench.take(protocol.Report)
    bench.child(pipe.Done(ids, [bytes(6 * MiB)], 0.0))
    parts = bench.take(protocol.Part)
    assert len(parts) == 4
    for _ in range(3):
        bench.hear(protocol.PartOk(parts[0].transfer))
    (report,) = bench.take(protocol.Report)
    assert report.slots == [parts[0].transfer]


def test_a_claim_of_nothing_does_no_harm(bench):
    """All items of a plan were given up between the plan and its claim."""
    bench.work(1)
    plan = bench.plan()
    bench.hear(protocol.Cancel([1]))
    bench.child(pipe.Claim(plan.serial, []))
    bench.child(pipe.Done([], [], 0.010))
    bench.work(2)
    bench.done(bench.claim(), 0.010)
    assert bench.fates() == {1: Fate.DROPPED, 2: "out"}


# Giving up


def test_an_item_that_waits_is_dropped_when_it_is_given_up(bench):
    bench.work(1, 2)
    bench.hear(protocol.Cancel([1]))
    assert bench.fates() == {1: Fate.DROPPED}
    assert pipe.Drop([1]) in bench.told
    assert bench.plan().ids == [2]


def test_an_item_that_runs_is_not(bench):
    bench.work(1)
    ids = bench.claim()
    bench.hear(protocol.Cancel([1]))
    assert bench.fates() == {}
    bench.done(ids)
    assert bench.fates() == {1: "out"}


def test_an_item_whose_budget_ends_while_it_waits_is_not_run(bench):
    bench.work(1)
    bench.claim()
    bench.work(2, budget=500)
    bench.work(3)
    assert bench.core.wake_at() <= bench.now + 0.5
    bench.turn(0.5)
    assert bench.fates() == {2: Fate.DROPPED}
    assert bench.plan().ids == [3]


# The model's process


def test_when_the_model_dies_what_had_begun_is_lost_and_the_rest_goes_back(bench):
    bench.work(1, 2, 3, 4, 5)
    bench.claim()
    bench.said[bench.link].clear()
    bench.core.on_child_gone(bench.now, "was killed by SIGKILL")
    bench.turn()
    states = [m for m in bench.said[bench.link] if isinstance(m, protocol.State)]
    (report,) = bench.take(protocol.Report)
    assert [slot[0] for slot in report.slots] == [Fate.LOST] * 4 + [Fate.RETURNED]
    assert report.slots[0][2] == {"batch": 4}
    words = "the model's process was killed by SIGKILL"
    assert states == [protocol.State(WorkerState.RESTARTING, words)]
    assert bench.did_last(StartChild)


def test_a_model_that_dies_as_it_starts_is_tried_again_with_growing_pauses_then_given_up():
    bench = Bench(boot_attempts=3)
    bench.connect()
    pauses = []
    for _ in range(2):
        bench.did.clear()
        bench.child(pipe.Failed("ImportError: torch"))
        bench.core.on_child_gone(bench.now, "ended with exit code 1")
        bench.turn()
        start = bench.now
        while StartChild() not in bench.did:
            bench.turn(bench.core.wake_at() - bench.now)
        pauses.append(bench.now - start)
    assert pauses == pytest.approx([0.2, 0.4])
    bench.child(pipe.Failed("ImportError: torch"))
    bench.core.on_child_gone(bench.now, "ended with exit code 1")
    bench.turn()
    assert bench.said[bench.link][-1] == protocol.State(WorkerState.BROKEN, "ImportError: torch")
    assert bench.did[-1] == Exit(broken=True, text="ImportError: torch")


def test_a_model_that_does_not_start_in_time_is_killed():
    bench = Bench(boot_timeout=60.0)
    bench.turn(60.0)
    assert bench.did_last(KillChild)


def test_a_predict_that_hangs_is_killed_and_its_items_are_lost(bench):
    bench.work(1)
    bench.claim()
    bench.turn(9.9)  # half of what its budget was
    assert not bench.did_last(KillChild)
    bench.turn(bench.core.wake_at() - bench.now)
    bench.turn(0.2)
    assert bench.did_last(KillChild)
    bench.work(2)
    bench.core.on_child_gone(bench.now, "was hung")
    bench.turn()
    assert bench.fates() == {1: Fate.LOST, 2: Fate.RETURNED}


def test_a_batch_that_usually_takes_more_than_3_s_counts_as_hung_only_after_10_times_that(bench):
    for seconds in (4.0, 4.0):
        bench.work(*range(1, 5), budget=300_000)
        bench.done(bench.claim(), seconds)
    bench.work(1, 2, 3, 4)
    bench.claim()
    bench.turn(39.9)  # one item alone would take less, and 30 s is the most for other models
    assert not bench.did_last(KillChild)
    bench.turn(bench.core.wake_at() - bench.now)
    bench.turn(0.2)
    assert bench.did_last(KillChild)


def test_a_hung_batch_is_killed_so_early_that_all_its_halvings_fit_into_its_budgets(bench):
    bench.work(1, 2, 3, 4)
    bench.done(bench.claim(), 0.050)
    begun = bench.now
    bench.work(5, 6, 7, 8)
    for ids, budget in ((5, 6, 7, 8), 20_000), ((7, 8), 15_000), ((8,), 10_000):
        bench.turn()
        bench.claim()
        while not bench.did_last(KillChild):
            bench.turn(bench.core.wake_at() - bench.now)
        bench.core.on_child_gone(bench.now, "was hung")
        bench.turn()
        bench.boot()
        left = int(1000 * (begun + 20 - bench.now))
        assert left >= budget - 5_001, ids
        bench.work(*ids[len(ids) // 2 :], budget=left, flags=Flag.ALONE)
    assert bench.now - begun < 15


def test_a_pause_of_the_agent_makes_no_batch_hang(bench):
    bench.work(1, 2, 3, 4)
    bench.done(bench.claim(), 0.050)
    bench.work(5)
    bench.claim()
    bench.turn(1.0)
    bench.core.on_pause(60.0)
    bench.turn(60.0)
    bench.turn(2.0)
    assert not bench.did_last(KillChild)
    bench.turn(30.0)
    assert bench.did_last(KillChild)


def test_an_item_that_expires_at_a_poll_is_in_no_plan_of_that_poll(bench):
    """Not even where another item comes with that poll and changes the plan."""
    bench.work(1)
    bench.claim()
    bench.work(2, budget=500)
    bench.work(3, budget=900)
    bench.told.clear()
    bench.now += 0.5
    bench.core.on_message(bench.now, bench.link, protocol.work(0, [4], [20_000], [b"\x01"], []))
    bench.turn()
    plans = [message.ids for message in bench.told if isinstance(message, pipe.Plan)]
    assert plans == [[3, 4]]


def test_whoever_kills_the_process_on_arrival_is_suspected_and_nobody_else(bench):
    bench.work(1, 2, 3)
    bench.work(4, 5)
    bench.child(pipe.Preparing([1, 2, 3]))
    bench.child(pipe.Prepared([], []))
    bench.child(pipe.Preparing([4, 5]))
    bench.said[bench.link].clear()
    bench.core.on_child_gone(bench.now, "was killed by SIGSEGV")
    bench.turn()
    (report,) = bench.take(protocol.Report)
    fates = {t: (slot[0], slot[2]) for t, slot in zip(report.done, report.slots, strict=True)}
    assert fates == {
        **dict.fromkeys((1, 2, 3), (Fate.RETURNED, {})),
        **dict.fromkeys((4, 5), (Fate.LOST, {"batch": 2})),
    }


def test_who_kills_on_arrival_is_not_hidden_by_the_batch_that_runs_meanwhile(bench):
    bench.work(1, 2, 3, 4)
    bench.claim()
    bench.work(5)
    bench.child(pipe.Preparing([5]))
    bench.said[bench.link].clear()
    bench.core.on_child_gone(bench.now, "was killed by SIGSEGV")
    bench.turn()
    (report,) = bench.take(protocol.Report)
    sizes = {t: slot[2]["batch"] for t, slot in zip(report.done, report.slots, strict=True)}
    assert sizes == {1: 4, 2: 4, 3: 4, 4: 4, 5: 1}


def test_while_a_killed_process_has_not_ended_nothing_spins():
    bench = Bench(predict_timeout=2.0)
    bench.connect()
    bench.boot()
    bench.work(1)
    bench.claim()
    bench.turn(2.1)
    assert bench.did_last(KillChild)
    assert bench.core.wake_at() > bench.now


def test_a_prepare_that_hangs_is_killed_and_its_items_are_lost():
    bench = Bench(predict_timeout=2.0)
    bench.connect()
    bench.boot(has_cost=True)
    bench.connect()
    bench.work(1)
    bench.child(pipe.Preparing([1]))
    bench.turn(1.9)
    assert not bench.did_last(KillChild)
    bench.turn(bench.core.wake_at() - bench.now)
    assert bench.did_last(KillChild)
    bench.core.on_child_gone(bench.now, "was hung")
    bench.turn()
    assert bench.fates() == {1: Fate.LOST}


def test_an_item_that_cannot_be_prepared_is_forgotten():
    bench = Bench()
    bench.connect()
    bench.boot(has_cost=True)
    bench.connect()
    bench.work(1)
    bench.child(pipe.Preparing([1]))
    bench.child(pipe.Done([1], [[Code.PREDICT_FAILED, "no", {}]], 0.0))
    bench.child(pipe.Prepared([], []))
    assert not bench.core.backlog.jobs
    assert not bench.core.backlog.leftovers


def test_a_time_limit_for_predict_is_kept():
    bench = Bench(predict_timeout=2.0)
    bench.connect()
    bench.boot()
    bench.work(1)
    bench.claim()
    bench.turn(2.0)
    assert bench.did_last(KillChild)


# A broker's connection


def test_when_the_connection_is_lost_only_what_runs_goes_on_and_its_outcome_is_dropped(bench):
    bench.work(1, 2, 3, 4, 5)
    ids = bench.claim()
    bench.core.on_lost(bench.now, bench.link)
    bench.turn()
    assert pipe.Drop([5]) in bench.told
    assert bench.plan().ids == []
    bench.connect()
    bench.said[bench.link].clear()
    bench.done(ids)
    assert bench.fates() == {}
    bench.work(1)
    bench.done(bench.claim())
    assert bench.fates() == {1: "out"}
    assert bench.core.backlog.jobs == {}


def test_each_broker_is_told_of_what_the_worker_holds_from_others():
    bench = Bench("tcp://a:1", "tcp://b:1")
    for link in bench.links:
        bench.connect(link)
    bench.boot()
    bench.work(1, 2, link=bench.links[0])
    bench.work(1, link=bench.links[1])
    for link in bench.links:
        bench.said[link].clear()
    bench.claim()
    bench.turn(BEGUN_HOLD)
    backlogs = [bench.take(protocol.Report, link)[0].backlog for link in bench.links]
    assert backlogs == [1, 2]


def test_a_broker_hears_within_a_second_that_the_items_of_others_are_done():
    bench = Bench("tcp://a:1", "tcp://b:1")
    for link in bench.links:
        bench.connect(link)
    bench.boot()
    first, second = bench.links
    bench.work(1, 2, link=first)
    ids = bench.claim()
    bench.work(1, link=second)
    bench.done(ids)
    bench.done(bench.claim())
    bench.said[first].clear()
    bench.turn(1.1)
    assert [report.backlog for report in bench.take(protocol.Report, first)] == [0]
    bench.turn(1.1)
    assert bench.said[first] == [protocol.Ping()]


def test_tickets_of_two_brokers_are_not_mixed_up():
    bench = Bench("tcp://a:1", "tcp://b:1")
    for link in bench.links:
        bench.connect(link)
    bench.boot()
    for link in bench.links:
        bench.work(1, link=link)
    bench.hear(protocol.Cancel([1]), bench.links[1])
    bench.done(bench.claim())
    assert bench.fates(bench.links[0]) == {1: "out"}
    assert bench.fates(bench.links[1]) == {1: Fate.DROPPED}


# Items that differ in cost


def test_a_model_that_counts_cost_asks_for_a_pool_to_choose_from():
    bench = Bench()
    bench.connect()
    bench.boot(has_cost=True)
    assert [type(action) for action in bench.did[-2:]] == [Close, Connect]
    bench.said[bench.link].clear()
    bench.connect()
    hello, state = bench.said[bench.link]
    assert hello.info["pool"] == 16
    assert state == protocol.State(WorkerState.WARM, "")


def test_batches_are_of_like_costs():
    bench = Bench(batch_size=2)
    bench.boot(has_cost=True)
    bench.connect()
    bench.work(1, 2, 3, 4)
    assert not [m for m in bench.told if isinstance(m, pipe.Plan)]
    bench.child(pipe.Prepared([1, 2, 3, 4], [10.0, 500.0, 480.0, 12.0]))
    assert sorted(bench.claim()) == [1, 4]
    assert sorted(bench.plan().ids) == [2, 3]


def test_an_item_given_up_before_its_cost_is_known_is_not_run():
    bench = Bench()
    bench.boot(has_cost=True)
    bench.connect()
    bench.work(1, 2)
    bench.hear(protocol.Cancel([1]))
    bench.child(pipe.Prepared([1, 2], [10.0, 11.0]))
    assert bench.plan().ids == [2]


# Draining


def test_a_worker_that_drains_finishes_what_it_has_and_leaves_after_the_brokers_word(bench):
    bench.work(1)
    ids = bench.claim()
    bench.core.drain()
    bench.turn()
    assert bench.take(protocol.State)[-1].state == WorkerState.DRAINING
    bench.work(2)  # it was on its way
    bench.hear(protocol.State(WorkerState.DRAINING, ""))
    bench.done(ids)
    assert not bench.did_last(Exit)
    bench.done(bench.claim())
    assert bench.fates() == {1: "out", 2: "out"}
    assert bench.did[-1] == Exit(broken=False)


def test_a_worker_that_has_nothing_to_do_still_waits_for_the_brokers_word(bench):
    bench.core.drain()
    bench.turn()
    assert not bench.did_last(Exit)
    bench.hear(protocol.State(WorkerState.DRAINING, ""))
    assert bench.did_last(Exit)


def test_a_worker_without_a_broker_leaves_at_once():
    bench = Bench()
    bench.core.drain()
    bench.turn()
    assert bench.did_last(Exit)


def test_a_claim_that_nobody_tells_of_is_looked_for_soon_and_then_ever_less_often(bench):
    bench.work(1)
    looks = []
    while len(looks) < 12:
        seconds = bench.core.wake_at() - bench.now
        looks.append(seconds)
        bench.turn(seconds)
    assert looks[0] == pytest.approx(LOOK)
    assert all(seconds > 0 for seconds in looks)
    assert max(looks) == pytest.approx(MAX_LOOK)
    bench.claim()
    assert bench.core.wake_at() - bench.now <= BEGUN_HOLD
