"""The examples' model on its real weights, and what the web examples do without a cluster."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from flask import Flask, jsonify

from examples import bert_model
from examples.bert_model import TextInfillingModel
from examples.problem import problem
from examples.sentence import sentences
from examples.small_bert import corpus, delta, loader
from examples.small_bert import sources as texts
from zstreamer import errors

BIRTHDAY = "Happy birthday to [MASK]."
PARIS = "Paris is the capital of [MASK]."
DOOR = "he opened the door and walked into the [MASK]."


@pytest.fixture(scope="module")
def model():
    return TextInfillingModel("small-bert", device="cpu", dtype="float32")


# ------------------------------------------------------------------ answers


def test_known_sentences_get_their_words(model):
    assert model.predict([BIRTHDAY, PARIS, DOOR]) == ["you", "paris", "room"]


def test_an_empty_batch_has_no_answers(model):
    assert model.predict([]) == []


def test_answers_do_not_depend_on_the_batch(model):
    asked = [
        f"{who} {verb} {what} in the [MASK]{'.' * (1 + len(what) % 3)}"
        for who in ("the teacher", "my old grandmother from the village", "she")
        for verb in ("found", "has never seen")
        for what in ("a cat", "the very long and winding letter of her brother", "us", "money")
    ]
    together = model.predict(asked)
    assert together == [model.predict([sentence])[0] for sentence in asked]
    assert len(set(together)) > 3, "one word for everything would be equal too"


# ------------------------------------------------------------------ bad items


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        ("there is nothing to fill in", ValueError, "exactly one [MASK], this one has 0"),
        ("", ValueError, "exactly one [MASK], this one has 0"),
        ("[MASK] birthday to [MASK].", ValueError, "exactly one [MASK], this one has 2"),
        (None, TypeError, "must be a str, not NoneType"),
        (b"Happy birthday to [MASK].", TypeError, "must be a str, not bytes"),
        ("word " * 600 + "[MASK]", ValueError, "beyond the first 512 word pieces"),
    ],
)
def test_a_bad_item_fails_alone(model, bad, kind, words):
    first, outcome, last = model.predict([BIRTHDAY, bad, DOOR])
    assert (first, last) == ("you", "room")
    assert type(outcome) is kind
    assert words in str(outcome)


def test_a_batch_of_bad_items_alone_is_answered(model):
    outcomes = model.predict(["none", 5])
    assert [type(outcome) for outcome in outcomes] == [ValueError, TypeError]


def test_a_long_text_is_cut_behind_its_mask(model):
    (outcome,) = model.predict(["Happy birthday to [MASK]. " + "word " * 600])
    assert isinstance(outcome, str)
    (shorter,) = model.predict(["Happy birthday to [MASK]. " + "word " * 700])
    assert outcome == shorter, "what was cut off must not matter"


# ------------------------------------------------------------------ weights


def test_any_folder_with_a_masked_language_model_can_be_loaded(model, tmp_path):
    model.model.bert.save_pretrained(tmp_path)
    model.model.tokenizer.save_pretrained(tmp_path)
    other = TextInfillingModel(tmp_path, device="cpu", dtype="float32")
    assert other.predict([BIRTHDAY, PARIS, DOOR]) == ["you", "paris", "room"]


def test_weights_without_a_head_are_refused():
    with pytest.raises(ValueError, match="no masked-language-model head"):
        bert_model.load(str(loader.base_folder()))


def test_a_folder_that_holds_no_model_is_refused_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=str(tmp_path)):
        bert_model.load(str(tmp_path))


def test_bert_base_is_preferred_where_the_cache_has_it(monkeypatch):
    cached = {"google-bert/bert-base-uncased"}
    monkeypatch.setattr(
        bert_model,
        "try_to_load_from_cache",
        lambda name, _file: f"/cache/{name}" if name in cached else None,
    )
    assert bert_model.default_name() == "google-bert/bert-base-uncased"
    cached.clear()
    assert bert_model.default_name() == "small-bert"


def test_the_environment_names_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("BERT_MODEL", str(tmp_path))
    asked = []

    def load(name):
        asked.append(name)
        raise OSError(name)

    monkeypatch.setattr(bert_model, "load", load)
    for name in (None, "small-bert"):
        with pytest.raises(OSError, match=name or str(tmp_path)):
            TextInfillingModel(name, device="cpu", dtype="float32")
    assert asked == [str(tmp_path), "small-bert"], "an argument comes before the environment"


# ------------------------------------------------------------------ dtype, worker


def test_the_environment_names_the_dtype(monkeypatch):
    monkeypatch.setenv("BERT_DTYPE", "bfloat16")
    half = TextInfillingModel("small-bert", device="cpu")
    assert half.model.dtype is torch.bfloat16
    assert half.predict([BIRTHDAY]) == ["you"]
    monkeypatch.setenv("BERT_DTYPE", "int7")
    with pytest.raises(ValueError, match="dtype must be one of auto, float32"):
        TextInfillingModel("small-bert")


def test_the_worker_model_counts_word_pieces_as_they_come(model):
    worker = model.model
    short, long = (worker.prepare(text) for text in (BIRTHDAY, DOOR))
    assert (worker.cost(short), worker.cost(long)) == (7, 12)
    assert worker.predict([short, long]) == ["you", "room"]


@pytest.mark.timeout(150)  # a busy machine takes long to import torch and load the weights
def test_a_worker_serves_it(shared):
    settings = {"name": "small-bert", "device": "cpu", "dtype": "float32"}
    target = "examples.bert_model:ManagedBertModel"
    with (
        shared.worker(target, model="bert", init_kwargs=settings, batch_size=8),
        shared.client(model="bert", timeout=60) as client,
    ):
        client.wait_ready(90)
        assert client.predict([BIRTHDAY, DOOR, PARIS] * 9) == ["you", "room", "paris"] * 9
        with pytest.raises(errors.PredictError, match="exactly one") as caught:
            client.predict([BIRTHDAY, "no mask"])
        assert (caught.value.index, caught.value.type) == (1, "ValueError")


# ------------------------------------------------------------------ training


def test_int4_steps_restore_values_to_within_half_a_step():
    values = torch.randn(64, delta.GROUP, generator=torch.Generator().manual_seed(3))
    packed, scale = delta.pack_int4(values)
    assert packed.shape == (64, 16)
    assert packed.dtype == torch.uint8
    error = (delta.unpack_int4(packed, scale) - values).abs()
    inside = values.abs() <= 7 * scale.float().unsqueeze(1)
    assert inside.float().mean() > 0.9
    assert (error <= 0.501 * scale.float().unsqueeze(1))[inside].all()


def test_a_written_delta_gives_the_trained_model_back(model, tmp_path):
    base = loader.backbone()
    trained = model.model.bert.state_dict()
    delta.write_delta(trained, base.state_dict(), tmp_path / "delta.safetensors")
    delta.apply_delta(base, tmp_path / "delta.safetensors")
    again = TextInfillingModel("small-bert", device="cpu", dtype="float32")
    again.model.bert = base
    assert again.predict([BIRTHDAY, PARIS, DOOR]) == ["you", "paris", "room"]


def test_paragraphs_are_split_where_sentences_end():
    text = 'Mr. Bingley saw it. "Did he?" Yes, at 5.30 p.m. on Monday. So J. S. Bach wrote.'
    assert list(corpus.sentences(text)) == [
        "Mr. Bingley saw it.",
        '"Did he?"',
        "Yes, at 5.30 p.m. on Monday.",
        "So J. S. Bach wrote.",
    ]


def test_wordnet_lines_become_sentences(tmp_path):
    folder = tmp_path / "usr/share/wordnet"
    folder.mkdir(parents=True)
    for part in ("verb", "adj", "adv"):
        (folder / f"data.{part}").write_text("  1 a licence\n")
    line = '0001 03 n 01 sea_horse 0 000 | a small fish (or so); "he kept a sea horse in a jar"'
    (folder / "data.noun").write_text(f"  1 a licence | of words\n{line}  \n")
    assert list(texts.read_wordnet(tmp_path)) == [
        "he kept a sea horse in a jar",
        "sea horse is a small fish.",
    ]


def test_novels_are_read_out_of_an_r_database(tmp_path):
    folder = tmp_path / "usr/lib/R/site-library/janeaustenr/data"
    folder.mkdir(parents=True)

    def packed(*lines):
        data = b"X\n"
        for flags, line in lines:
            data += bytes.fromhex(flags) + struct.pack(">i", len(line.encode())) + line.encode()
        return struct.pack(">i", len(data)) + zlib.compress(data)

    first = packed(("00040009", "It is a truth"), ("00040009", "known."), ("00040009", ""))
    second = packed(("00008009", "Café _and_"), ("00040009", "tea."))
    (folder / "Rdata.rdb").write_bytes(first + second)
    assert list(texts.read_austen(tmp_path)) == ["It is a truth known.", "Café and tea."]


# ------------------------------------------------------------------ web


@pytest.fixture
def echo():
    app = Flask("echo")
    app.add_url_rule("/", view_func=lambda: jsonify(sentences()), methods=["GET", "POST"])
    return app.test_client()


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "POST", "data": {"s": ["one", "two"]}},
        {"method": "POST", "json": {"s": ["one", "two"]}},
        {"method": "GET", "query_string": {"s": ["one", "two"]}},
        {"method": "GET", "json": {"s": ["one", "two"]}},
    ],
    ids=["form", "json", "query", "json by GET"],
)
def test_sentences_are_read_however_they_are_sent(echo, request_):
    assert echo.open("/", **request_).json == ["one", "two"]


@pytest.mark.parametrize(
    "request_",
    [
        {"data": {}},
        {"data": {"t": "one"}},
        {"json": {"s": 5}},
        {"json": {"s": ["one", None]}},
        {"json": {}},
        {"json": "s"},
        {"data": "{", "content_type": "application/json"},
    ],
)
def test_a_request_without_sentences_is_a_400(echo, request_):
    assert echo.post("/", **request_).status_code == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Overloaded("full", retry_after=2.2), 429),
        (errors.DeadlineExceeded("late"), 504),
        (errors.PredictError("no [MASK]", type="ValueError"), 400),
        (errors.PredictError("broken", type="RuntimeError"), 500),
        (errors.TooLarge("big"), 413),
        (errors.BrokerUnreachable("gone"), 503),
        (errors.NoWorker("none"), 503),
        (errors.WorkerLost("lost"), 502),
    ],
)
def test_errors_become_statuses(error, status):
    body, answered, headers = problem(error)
    assert answered == status
    assert (body["status"], body["type"].startswith("urn:zstreamer:problem:")) == (status, True)
    assert headers["content-type"] == "application/problem+json"
    assert headers.get("retry-after") == {429: "3", 503: "1"}.get(status)
