"""What is wrong with a model's workers: none, hung, dying, failing, slow, drained. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from zstreamer.doctor.evidence import Model, Worker, number
from zstreamer.doctor.finding import Finding

LEAST_ANSWERS = 5
"""Answers without which nothing is said of how many fail."""

ALL_FAIL, MANY_FAIL = 0.9, 0.1
"""Shares of errors among the answers."""

HUNG = 3.0
"""Seconds that a batch may run before it is worth a word, and times as long as usual."""

SLOWER = 1.8
SLOWER_BY = 0.005
"""Times as long as its peers that a worker's batch takes, and seconds more, to be called slow."""

SATURATED = 0.5
"""Share of its CPUs that a model must use for more threads than CPUs to matter."""

_STARTING = ("booting", "restarting")


def findings(model: Model) -> Iterator[Finding]:
    """Yield what is wrong with the workers of one model."""
    rules = (_hung, _silent, _dying, _not_ready, _failing, _slow, _threads, _drained)
    for rule in rules:
        if found := rule(model):
            yield found


def _last_line(text: object) -> str:
    return (str(text or "").strip().splitlines() or [""])[-1].strip()


def _hung(model: Model) -> Finding | None:
    def age(worker: Worker) -> float:
        return worker.value("batch_age")

    def usual(worker: Worker) -> float:
        return (worker.value("beta_ms") + worker.value("alpha_ms") * worker.batch_size) / 1000

    hung = [w for w in model.workers if age(w) > max(HUNG, HUNG * usual(w)) or w.state == "late"]
    if not hung:
        return None
    worst = max(hung, key=age)
    return Finding(
        "hangs",
        90,
        f"model {model.name} hangs: a batch has run for {age(worst):.0f} s",
        f"worker {worst.name} began it {age(worst):.1f} s ago, and its batches usually take "
        f"{usual(worst):.2f} s at most; {len(hung)} of {len(model.workers)} workers hang",
        "look what its process does (py-spy dump --pid …); the worker kills it after "
        "--predict-timeout and starts it again; set that lower if it is always a hang",
        model.name,
    )


def _silent(model: Model) -> Finding | None:
    silent = [w for w in model.workers if w.state == "stalled"]
    if not silent:
        return None
    worst = max(silent, key=lambda w: w.value("silent"))
    return Finding(
        "silent",
        84,
        f"{len(silent)} of {len(model.workers)} workers of model {model.name} are silent",
        f"worker {worst.name} has said nothing for {worst.value('silent'):.1f} s, and says "
        "something each second when it is well",
        "look whether the process is stopped (state T in ps), its machine is frozen or swaps, or "
        "its CPUs are taken; it gets items again as soon as it speaks",
        model.name,
    )


def _dying(model: Model) -> Finding | None:
    lately = sum(max(w.grown("deaths"), w.grown("failures")) for w in model.workers)
    ever = sum(max(w.value("deaths"), w.value("failures")) for w in model.workers)
    if lately < 2 and (ever < 3 or not lately):
        return None
    words = [_last_line(w.last.get("trouble") or w.last.get("death")) for w in model.workers]
    return Finding(
        "flaps",
        86,
        f"model {model.name} flaps: its processes die and start again and again",
        f"{lately:.0f} deaths in {model.seconds:.1f} s and {ever:.0f} since the workers started; "
        f"the last: {next(filter(None, words), 'not known')}",
        "read the workers' log from the first death on; an item that kills is answered with "
        "WorkerLost, so look at what callers with that error sent; look for kills by the kernel "
        "for memory (dmesg)",
        model.name,
    )


def _not_ready(model: Model) -> Finding | None:
    if model.warm or any(w.state in ("late", "stalled", "drained") for w in model.workers):
        return None
    if not model.workers and not {"versions", "alias"}.isdisjoint(model.last):
        return None  # its versions, or the model that it stands for, are looked at by themselves
    trouble = _last_line(model.last.get("trouble"))
    if trouble and (not model.workers or any(w.state == "broken" for w in model.workers)):
        return Finding(
            "cannot-start",
            95,
            f"model {model.name} cannot start: {trouble}",
            f"no worker of it is ready, {len(model.workers)} are connected; "
            f"{model.queued[-1]:,.0f} items wait",
            "zstreamer status shows the whole traceback; fix the cause and start the worker again",
            model.name,
        )
    if not model.workers:
        return Finding(
            "no-worker",
            92,
            f"no worker serves model {model.name} any more",
            f"it was served here before; {model.queued[-1]:,.0f} items wait",
            f"start one: zstreamer worker MODULE:NAME --model {model.name}",
            model.name,
        )
    if all(w.state in _STARTING for w in model.workers):
        return Finding(
            "starting",
            70,
            f"the workers of model {model.name} are still starting",
            f"none of {len(model.workers)} is warm; {model.queued[-1]:,.0f} items wait"
            + (f"; the last trouble: {trouble}" if trouble else ""),
            "wait, or read the workers' log if a start takes longer than the model needs to load",
            model.name,
        )
    return None


def _failing(model: Model) -> Finding | None:
    answered, failed = model.grown("answered"), model.grown("failed")
    if answered < LEAST_ANSWERS or failed < MANY_FAIL * answered:
        return None
    everything = failed >= ALL_FAIL * answered
    return Finding(
        "fails-everything" if everything else "fails",
        88 if everything else 62,
        f"model {model.name} fails "
        + (
            "everything that it is given" if everything else f"{failed / answered:.0%} of its items"
        ),
        f"{failed:,.0f} of {answered:,.0f} answers in {model.seconds:.1f} s were errors",
        "the workers' log and the callers' PredictError have the traceback; a model that works on "
        "nothing is best restarted with the release that worked",
        model.name,
    )


def _slow(model: Model) -> Finding | None:
    known = [w for w in model.warm if w.grown("batches") >= 3 and w.batch_seconds]
    for worker in sorted(known, key=lambda w: -_for_peers(w, known)):
        peers = [_for_peers(w, known) for w in known if w is not worker]
        if not peers:
            return None
        own, usual = _for_peers(worker, known), median(peers)
        if own > SLOWER * usual and own > usual + SLOWER_BY and own > max(peers):
            return Finding(
                "slow-worker",
                55,
                f"worker {worker.name} of model {model.name} is slower than its peers",
                f"a batch like theirs takes it {own * 1000:,.1f} ms, and its {len(peers)} peers "
                f"{usual * 1000:,.1f} ms",
                "compare its device, clock rate and temperature (nvidia-smi) and who else uses its "
                f"machine; zstreamer drain {worker.name} takes it out without an error",
                model.name,
            )
    return None


def _for_peers(worker: Worker, known: list[Worker]) -> float:
    """Return the seconds that a worker would take for the mean batch of all of them."""
    items = sum(w.grown("items") for w in known) / sum(w.grown("batches") for w in known)
    return (worker.value("beta_ms") + worker.value("alpha_ms") * items) / 1000


def _threads(model: Model) -> Finding | None:
    for worker in model.workers:
        cpus, threads = worker.value("cpus"), worker.value("model_threads")
        used = worker.grown("model_cpu") / worker.seconds if worker.seconds else 0.0
        if cpus and threads >= cpus + 1 and used >= SATURATED * cpus:
            return Finding(
                "threads",
                52,
                f"a worker of model {model.name} computes in more threads than it has CPUs",
                f"worker {worker.name} has {cpus:g} CPUs by its affinity and control group, "
                f"{threads:.0f} threads of its model compute, and they use {used:.1f} CPUs",
                "give it more CPUs, or set OMP_NUM_THREADS (torch.set_num_threads) to no more than "
                "it has: threads that wait for a CPU hold all others up",
                model.name,
            )
    return None


def _drained(model: Model) -> Finding | None:
    drained = [w for w in model.workers if w.state == "drained"]
    if not drained:
        return None
    alone = not model.warm
    names = ", ".join(w.name for w in drained[:5])
    return Finding(
        "drained",
        87 if alone else 30,
        f"{'all' if alone else len(drained)} workers of model {model.name} are drained",
        f"an operator has drained {names}; {number(model.last.get('queued')):,.0f} items wait",
        f"zstreamer resume {drained[0].name} when it may work again",
        model.name,
    )
