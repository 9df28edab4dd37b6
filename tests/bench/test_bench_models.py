"""The benchmarks that run models: their machinery, at the smallest size. Their figures are not
looked at here, since a machine that runs tests may be busy.
"""

import json
import math

import pytest

from examples.small_bert.loader import tokenizer
from tests.bench import bert as berts
from tests.bench import card, fill, gpu, hold, plots, point, report, sleeper
from tests.bench import cpu as on_cpu
from tests.bench.callers import Spec, Tally
from tests.bench.load import Load, Times, together
from tests.bench.point import CLOSED, OPEN, Point
from tests.bench.sleeper import Batch, Sleeper
from tests.helpers.cluster import Cluster

SHORT = 0.2
"""Seconds of a window."""


# The sleeping model and its diary


def test_the_sleeper_says_how_long_its_batches_took(tmp_path):
    model = Sleeper()
    model.init_model(beta=0.002, alpha=0.001, folder=tmp_path)
    took = model.predict(["a", "b", "c"])
    assert len(took) == 3 and len(set(took)) == 1 and took[0] >= 0.005
    [batch] = sleeper.diary(tmp_path)
    assert batch.items == 3 and batch.end - batch.begin == took[0]


def test_a_diary_whose_last_entry_is_half_written_is_read_up_to_there(tmp_path):
    model = Sleeper()
    model.init_model(beta=0.0, alpha=0.0, folder=tmp_path)
    model.predict([1])
    [path] = tmp_path.glob("*.batches")
    path.write_bytes(path.read_bytes() + b"half")
    assert len(sleeper.diary(tmp_path)) == 1


def test_busy_counts_the_parts_of_batches_that_lie_in_the_window():
    batches = [Batch(0.0, 2.0, 5), Batch(3.0, 5.0, 7), Batch(9.0, 9.5, 1)]
    assert sleeper.busy(batches, 1.0, 4.0, workers=1) == pytest.approx(2 / 3)
    assert sleeper.busy(batches, 1.0, 4.0, workers=2) == pytest.approx(1 / 3)
    assert sleeper.mean_batch(batches, 0.0, 4.0) == 6
    assert sleeper.mean_batch(batches, 6.0, 8.0) == 0
    assert sleeper.longer(batches, 0.0, 4.0, beta=1.0, alpha=0.0) == pytest.approx(1.0)


# Load from programs of their own


@pytest.fixture(scope="module")
def sleeping():
    with Cluster() as cluster:
        times = {"beta": 0.002, "alpha": 0.0001}
        cluster.worker("tests.bench.sleeper:Sleeper", batch_size=8, init_kwargs=times)
        with Load(cluster.address, "default") as load:
            yield load


def test_an_open_loop_heeds_no_answers(sleeping):
    tally = sleeping.measure(Spec(rate=300, warm_up=0.1, seconds=0.5, timeout=5.0))
    assert tally.end - tally.start == pytest.approx(0.5)
    assert tally.made == pytest.approx(150, abs=6 * math.sqrt(150))  # Poisson
    assert len(tally.latencies) + sum(tally.errors.values()) >= tally.made
    assert all(0 <= own < all_of_it for own, all_of_it in own_and_all(tally))


def test_a_closed_loop_has_no_more_open_than_callers(sleeping):
    tally = sleeping.measure(Spec(callers=3, warm_up=0.0, seconds=SHORT))
    assert not tally.errors
    # Those that are open at the end are the only ones that are sent in the window, not answered.
    assert 0 <= tally.made - tally.answered <= 3


def test_callers_that_think_send_less(sleeping):
    eager = sleeping.measure(Spec(callers=2, warm_up=0.0, seconds=SHORT))
    thinking = sleeping.measure(Spec(callers=2, think=0.1, warm_up=0.0, seconds=SHORT))
    assert 0 < thinking.made < eager.made


def test_what_ends_in_an_error_is_counted_by_its_name(sleeping):
    tally = sleeping.measure(Spec(callers=2, warm_up=0.0, seconds=SHORT, timeout=0.001))
    assert tally.errors.get("DeadlineExceeded", 0) + tally.errors.get("Overloaded", 0) > 0


def test_callers_that_die_are_told_of():
    with Cluster() as cluster:
        load = Load(cluster.address, "nobody-serves-this")
        [program] = load._programs
        program._process.kill()
        program._process.wait()
        with pytest.raises(RuntimeError, match="ended with code -9"), load:
            pass


def own_and_all(tally):
    """The microseconds beyond the model's own, and in all, of each item."""
    return zip(tally.beyond, tally.latencies, strict=True)


def test_tallies_of_several_programs_become_one():
    one = Tally(1.0, 3.0, made=2, answered=1, latencies=[5], beyond=[1], errors={"Overloaded": 1})
    two = Tally(1.5, 3.5, made=3, answered=3, latencies=[7, 8, 9], beyond=[2, 3, 4], errors={})
    both = together([one, two])
    assert (both.start, both.end, both.made, both.answered) == (1.5, 3.0, 5, 4)
    assert both.latencies == [5, 7, 8, 9] and both.errors == {"Overloaded": 1}


def test_times_of_none_one_and_many():
    assert Times.of([]) == Times(0.0, 0.0)
    assert Times.of([1500]) == Times(1.5, 1.5)
    assert Times.of([1000 * n for n in range(101)]) == Times(50.0, 99.0)


# fill


def a_point(**changes):
    values = {
        "loop": OPEN,
        "workers": 2,
        "load": 150,
        "made": 12_000.0,
        "answered": 7_900.0,
        "busy": [0.98, 0.99, 0.98],
        "batch": 63.5,
        "longer": 0.01,
        "added": Times(4.0, 9.0),
        "latency": Times(20.0, 30.0),
        "cores": {"broker": 0.25},
        "errors": {"Overloaded": 7},
    }
    return Point(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, True),
        ({"made": 0.9 * 1.5 * point.CAPACITY}, False),
        ({"load": 100, "made": 8_000.0}, False),
        ({"load": 100, "loop": CLOSED, "made": 7_000.0}, True),
        ({"load": 90, "loop": CLOSED}, False),
    ],
    ids=["overload", "load not reached", "just full", "closed and full", "closed and not full"],
)
def test_a_model_must_be_busy_only_under_a_load_that_fills_it(changes, judged):
    found = a_point(**changes)
    assert found.judged is judged
    assert found.row().holds is (True if judged else None)


def test_a_load_that_was_not_reached_is_told():
    assert "9,000 items/s made of 12,000 (not reached)" in a_point(made=9_000.0).words()
    assert "not reached" not in a_point().row().told
    assert "7 Overloaded" in a_point().words()


def test_fill_measures_open_and_closed_loops_of_several_workers():
    found = list(fill.points(2, (25, 100), SHORT))
    assert [(each.loop, each.load) for each in found] == [
        (OPEN, 25),
        (OPEN, 100),
        (CLOSED, 25),
        (CLOSED, 100),
    ]
    for each in found:
        assert 0 < each.batch <= fill.BATCH
        assert len(each.busy) == fill.SLICES and all(0 <= share <= 1 for share in each.busy)
        assert each.longer > 0  # no sleep is shorter than it was told to be
        assert each.cores.keys() == {"callers", "broker", "agents", "models"}


def test_holds_are_compared_with_none(monkeypatch):
    monkeypatch.setattr(hold, "ROUNDS", 2)
    trickle, thinkers, lone, *against = hold.rows(SHORT)
    assert trickle.bound == (">=", 1.0) and thinkers.bound is None
    assert lone.bound == ("<=", 2.0) and lone.ratio is None
    assert [row.values == lone.values and row.bound is None for row in against] == [True, True]
    assert all(value > 0 for row in (trickle, thinkers, lone) for value in row.values)


# BERTs


@pytest.fixture(scope="module")
def tokens():
    """Turns texts into word pieces as the small BERT does."""
    encode = tokenizer()
    return lambda text: encode(text)["input_ids"]


def test_texts_have_as_many_word_pieces_as_asked(tokens):
    for pieces in (berts.FRAME, 5, 16, 77, 200, berts.LONGEST):
        assert len(tokens(berts.text(pieces))) == pieces


def test_lengths_have_a_long_tail_and_are_the_same_each_time():
    lengths = sorted(berts.lengths(10_000))
    assert lengths == sorted(berts.lengths(10_000))
    assert lengths[5_000] == pytest.approx(berts.MEDIAN, abs=1)
    assert lengths[9_500] == pytest.approx(berts.NINETY_FIFTH, rel=0.1)
    assert lengths[0] == berts.FRAME and lengths[-1] == berts.LONGEST


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_cpu_compares_the_small_bert_with_itself_in_a_loop():
    report = on_cpu.measure(SHORT, sizes=(2,), rounds=1)
    served, prepared = report.rows
    assert served.bound == (">=", 0.95) and served.told == "batches of 2"
    assert served.values == prepared.values and served.ratio > 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_gpu_takes_the_same_way_on_a_cpu():
    report = gpu.run(SHORT, tiny=True)
    assert not report.error
    measured = [row.name for row in report.rows if row.values]
    for name in gpu.names(gpu.TINY):
        assert any(each.startswith(name) for each in measured), f"{name}: {report.rows}"
    assert "BERT-tiny" in report.notes[0]


def test_gpu_without_a_device_marks_what_was_not_measured(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = gpu.run(SHORT)
    assert found.good and "no CUDA device" in found.notes[0]
    assert [row.name for row in found.rows] == gpu.names(gpu.Plan())
    assert report.table(found).count("(not measured)") == len(found.rows)


def test_shares_of_a_cards_peak():
    assert card.flops(16) == pytest.approx(2.73e9, rel=0.001)
    assert card.peak("NVIDIA H100 80GB HBM3") / card.flops(16) == pytest.approx(363_000, rel=0.01)
    assert card.peak("NVIDIA H100 PCIe") == 756e12
    assert card.peak("a card of tomorrow") is None


# Plots


def test_plots_are_drawn_from_the_json_of_fill(tmp_path):
    points = [
        vars(a_point(loop=loop, workers=workers, load=load))
        for loop in (OPEN, CLOSED)
        for workers in (1, 2)
        for load in (10, 100, 300)
    ]
    text = json.dumps([{"bench": "fill", "points": points}], default=vars)
    drawn = plots.draw(plots.points_of(text), tmp_path)
    assert [path.name for path in drawn] == [
        "throughput.svg",
        "latency.svg",
        "batches.svg",
        "busy.svg",
    ]
    before = [path.read_bytes() for path in drawn]
    assert all(b"<svg" in each and b"closed loop" in each for each in before)
    plots.draw(plots.points_of(text), tmp_path)
    assert [path.read_bytes() for path in drawn] == before


def test_plots_of_a_file_without_points_are_refused():
    with pytest.raises(ValueError, match="must hold a report of `fill`"):
        plots.points_of('{"bench": "broker"}')
