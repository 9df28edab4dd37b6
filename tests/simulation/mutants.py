"""Deliberate bugs, each of which the simulator must find.

A mutant replaces one method by a version with one thing forgotten or mistaken. `MUTANTS` maps a
name to a context manager that makes the bug while it lasts.
"""

import contextlib
import math
from unittest import mock

from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.lots import Lot
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.sessions import Sessions
from zstreamer.broker.workers import Worker
from zstreamer.client.core import ClientCore
from zstreamer.client.link import ClientLink
from zstreamer.client.tour import Tours
from zstreamer.wire.protocol import Fate
from zstreamer.wire.transfer import Sender
from zstreamer.worker.backlog import Backlog
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.patience import Patience
from zstreamer.worker.runner import Runner

MUTANTS = {}


def mutant(cls, method):
    """Register the decorated function as a wrong version of ``cls.method``.

    It is given the right version before the method's own arguments.
    """

    def register(wrong):
        right = getattr(cls, method)

        @contextlib.contextmanager
        def bug():
            def replaced(*args, **kwargs):
                return wrong(right, *args, **kwargs)

            with mock.patch.object(cls, method, replaced):
                yield

        MUTANTS[wrong.__name__.replace("_", " ")] = bug
        return wrong

    return register


@mutant(Worker, "release")
def a_window_credit_is_forgotten_when_the_item_had_ended(release, self, tickets):
    ended = {t: lot for t in tickets if (lot := self.tickets.get(t)) and not lot.wanted()}
    lots = release(self, tickets)
    self.tickets.update(ended)
    return lots


@mutant(Scheduler, "_take_back")
def items_that_had_not_begun_are_charged(take_back, self, model, lots):
    for lot in lots:
        lot.deaths += 1
    take_back(self, model, self._without_struck_out(lots))


@mutant(Scheduler, "_without_once")
def items_that_may_run_once_are_run_again(without_once, self, lots):
    return lots


@mutant(Scheduler, "_suspect_halves")
def suspects_go_back_into_the_common_queue(suspect_halves, self, model, lots):
    for lot in lots:
        self._count_in(lot)
        model.queue.push_returned(lot)


@mutant(Worker, "give_back")
def begun_items_of_a_lost_worker_are_forgotten(give_back, self):
    return give_back(self)[0], []


@mutant(WorkerCore, "on_lost")
def an_agent_reports_tickets_of_a_lost_connection_on_the_next(on_lost, self, now, link):
    running = [job for job in self.backlog.jobs.values() if job.link is link and job.begun]
    on_lost(self, now, link)
    for job in running:  # fencing skipped
        job.link = link
        link.jobs += 1


@mutant(ClientRecord, "flush")
def answers_are_not_kept_until_they_are_read(flush, self):
    messages = flush(self)
    self._kept.clear()
    self.unread = 0
    return messages


@mutant(Sessions, "forget")
def a_dead_clients_items_stay(forget, self, client):
    del self.clients[client.id]


@mutant(Worker, "release")
def a_batch_that_is_done_still_counts_as_running(release, self, tickets):
    running = set(self.running)
    lots = release(self, tickets)
    self.running = running
    return lots


@mutant(Lot, "take")
def the_rest_of_a_lot_keeps_the_bytes_of_what_was_cut_off(take, self, count):
    size = self.size
    first = take(self, count)
    self.size = size
    return first


@mutant(ClientCore, "_welcome")
def a_client_takes_all_its_items_for_known_after_a_reconnect(welcome, self, now, link, message):
    welcome(self, now, link, message._replace(resumed=True, known=list(link.sent)))


@mutant(ClientCore, "_welcome")
def a_client_sends_everything_again_after_a_reconnect(welcome, self, now, link, message):
    self._resend(link, list(link.sent), "")
    welcome(self, now, link, message)


@mutant(ClientCore, "_check_deadlines")
def a_client_lets_deadlines_pass(check_deadlines, self, now):
    check_deadlines(self, now - 0.2)


@mutant(ClientLink, "room_for")
def a_client_ignores_the_window(room_for, self, size):
    return True


@mutant(ClientLink, "forget")
def a_cancelled_items_bytes_stay_on_the_window(forget, self, id, size):
    return forget(self, id, 0)


@mutant(Backlog, "_end")
def an_agent_keeps_quiet_about_items_that_had_not_begun(end, self, job, outcome):
    if isinstance(outcome, list) and outcome[0] == Fate.RETURNED and job.link is not None:
        job.link.jobs -= 1
        del self._by_ticket[id(job.link), job.ticket]
        job.link = None
    end(self, job, outcome)


@mutant(Backlog, "_unplan")
def a_cancelled_item_stays_in_the_batcher(unplan, self, ids):
    pass


@mutant(Sender, "ok")
def a_part_that_was_read_frees_nothing(ok, self):
    pass


@mutant(WorkerCore, "drain")
def a_draining_worker_leaves_at_once(drain, self):
    drain(self)
    for link in self.links:
        link.drained = True
    self.backlog.jobs.clear()


@mutant(ClientCore, "_gives_up_at")
def calls_do_not_move_from_a_lost_broker_to_another(gives_up_at, self, link):
    return math.inf


@mutant(Tours, "refused")
def a_refusal_is_told_although_another_broker_may_take_the_item(
    refused, self, link, call, index, error
):
    self._fail(call, index, error)


@mutant(Scheduler, "refuse")
def what_a_broker_hands_back_is_no_refusal(refuse, self, lots, error):
    self.fail(lots, error)


@mutant(Scheduler, "hand_back")
def items_stay_with_a_broker_that_has_lost_its_worker(hand_back, self, *args, **kwargs):
    pass


@mutant(ClientCore, "_call_back")
def what_waits_for_a_worker_is_not_called_back(call_back, self, model):
    pass


@mutant(Tours, "may_come")
def a_broker_that_is_out_of_reach_is_not_waited_for(may_come, self, now, link):
    return False


@mutant(Worker, "is_stuck")
def what_a_silent_worker_holds_is_not_taken_back(is_stuck, self, now):
    return False


@mutant(Patience, "until")
def a_predict_that_hangs_is_waited_for(until, self):
    return math.inf


@mutant(Runner, "_split")
def what_may_run_once_is_run_again_after_an_exception(split, self, error, items, once):
    return split(self, error, items, [False] * len(items))


@mutant(Model, "next_suspects")
def who_is_suspected_after_a_hang_or_a_lost_device_is_forgotten(next_suspects, self):
    return []


@mutant(Backlog, "model_gone")
def what_a_broken_model_was_running_is_nobodys_fault(model_gone, self, how):
    if "broken" in how:
        self.running.clear()
    model_gone(self, how)
