"""Each task on a tiny model, against what transformers and sentence-transformers answer."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from tests.hf import models
from zstreamer.errors import BadRequest
from zstreamer.hf import model
from zstreamer.setting import ConfigError

TEXTS = ["the cat sat on the mat", "she is happy", "ada", "", "the dog " * 30]
LONG = "the " * 200


def loaded(folder, **settings):
    made = model(str(folder), device="cpu", **settings)()
    made.init_model()
    return made


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# Embeddings


@pytest.mark.parametrize(
    "mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
)
def test_pooling_is_that_of_sentence_transformers(tmp_path, mode):
    from sentence_transformers import SentenceTransformer

    models.bert(BertModel, tmp_path)
    pooling = {"word_embedding_dimension": 16, "pooling_mode": mode}
    models.sentences(tmp_path, [("Pooling", pooling), ("Normalize", {})])
    found = np.stack(loaded(tmp_path)(TEXTS))
    close(found, SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS))
    close((found**2).sum(1), 1)


def test_prompts_dense_layers_and_lengths_are_those_of_sentence_transformers(tmp_path):
    from safetensors.torch import save_file
    from sentence_transformers import SentenceTransformer

    models.bert(BertModel, tmp_path)
    dense = {"in_features": 32, "out_features": 4, "bias": True}
    older = {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": True,
    }
    models.sentences(
        tmp_path,
        [
            ("Pooling", older),
            ("Dense", {**dense, "activation_function": "torch.nn.modules.activation.Tanh"}),
        ],
        sentence_bert_config={"max_seq_length": 7},
        config_sentence_transformers={
            "prompts": {"query": "she is ", "other": "a "},
            "default_prompt_name": "query",
        },
    )
    save_file(
        {"linear.weight": torch.randn(4, 32), "linear.bias": torch.randn(4)},
        tmp_path / "2_Dense/model.safetensors",
    )
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    ours = loaded(tmp_path)
    close(np.stack(ours(TEXTS)), theirs.encode(TEXTS))
    assert ours.max_length == 7
    assert ours.outputs[0].shape == (4,) or list(ours.outputs[0].shape) == [4]
    other = np.stack(loaded(tmp_path, prompt="other")(TEXTS))
    close(other, theirs.encode(TEXTS, prompt_name="other"))
    close(np.stack(loaded(tmp_path, prompt="")(TEXTS)), theirs.encode(TEXTS, prompt=""))
    with pytest.raises(ConfigError, match=r"no prompt 'none'; it has .'other', 'query'."):
        loaded(tmp_path, prompt="none")


def test_an_encoder_alone_is_pooled_by_its_mean(tmp_path):
    module = models.bert(BertModel, tmp_path)
    ids = torch.tensor([[2, 5, 7, 9, 3]])
    with torch.no_grad():
        wanted = module(input_ids=ids).last_hidden_state[0].mean(0)
    made = loaded(tmp_path)
    for item in ("the cat sat", [5, 7, 9], {"input": "the cat sat"}):
        close(made([item])[0], wanted)
    (told,) = made([{"input": [5, 7, 9], "usage": True}])
    close(told["embedding"], wanted)
    assert told["tokens"] == 5


def test_long_texts_are_cut_or_refused(tmp_path):
    models.bert(BertModel, tmp_path)
    cut = loaded(tmp_path, max_length=6)
    close(cut([LONG])[0], cut(["the the the the"])[0])
    close(cut([LONG])[0], cut([[5] * 30])[0])
    refuse = loaded(tmp_path, truncation=False)
    assert refuse.max_length == 16, "as the tokenizer says"
    text, ids, fine = refuse([LONG, [5] * 30, "the cat"])
    assert isinstance(text, BadRequest) and "202 tokens, and the model takes 16" in str(text)
    assert isinstance(ids, BadRequest)
    assert isinstance(fine, np.ndarray)
    with pytest.raises(ConfigError, match="at most 32"):
        loaded(tmp_path, max_length=33)


@pytest.mark.parametrize(
    "item", [None, 5, b"x", [], [99], [-1], [True], ["the"], {"text": "x"}, {"input": 5}]
)
def test_what_is_no_text_is_the_callers_fault(tmp_path_factory, embeddings, item):
    bad, good = embeddings([item, "the cat"])
    assert isinstance(bad, BadRequest)
    assert good.shape == (16,)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    models.bert(BertModel, folder)
    return loaded(folder)


# Labels


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (None, 1),
        (None, 3),
        ("regression", 1),
        ("regression", 3),
        ("single_label_classification", 3),
        ("multi_label_classification", 1),
        ("multi_label_classification", 3),
    ],
)
def test_labels_and_scores_are_those_of_transformers(tmp_path, kind, labels):
    names = {"id2label": {at: f"L{at}" for at in range(labels)}}
    models.bert(BertForSequenceClassification, tmp_path, problem_type=kind, **names)
    theirs = pipeline("text-classification", str(tmp_path), device="cpu")
    wanted = theirs(TEXTS, top_k=None, truncation=True)
    for found, each in zip(
        loaded(tmp_path, task="text-classification", top_k=0)(TEXTS), wanted, strict=True
    ):
        assert [one["label"] for one in found] == [one["label"] for one in each]
        close([one["score"] for one in found], [one["score"] for one in each])
    (first,) = loaded(tmp_path, task="text-classification")([TEXTS[0]])
    assert (first if kind != "multi_label_classification" else first[0])["label"] == wanted[0][0][
        "label"
    ]
    pair = {"text": "the cat", "text_pair": "sat"}
    (ours,) = loaded(tmp_path, task="text-classification", top_k=1)([pair])
    close(ours[0]["score"], theirs([pair], top_k=1)[0][0]["score"])


def test_entities_are_those_of_transformers(tmp_path):
    names = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
    models.bert(BertForTokenClassification, tmp_path, id2label=names)
    theirs = pipeline(
        "token-classification", str(tmp_path), aggregation_strategy="simple", device="cpu"
    )
    texts = ["Ada lives in London", "the cat, the dog; on  a mat", "she is not happy", ""]
    for text, found in zip(texts, loaded(tmp_path)(texts), strict=True):
        wanted = theirs(text) if text else []
        keys = ("entity_group", "start", "end")
        assert [[each[key] for key in keys] for each in found] == [
            [each[key] for key in keys] for each in wanted
        ]
        close([each["score"] for each in found], [each["score"] for each in wanted])
        assert all(each["word"] == text[each["start"] : each["end"]] for each in found)
    assert any(loaded(tmp_path)(texts)), "with no entity at all they would be equal too"


def test_masks_are_filled_as_by_transformers(tmp_path):
    models.bert(BertForMaskedLM, tmp_path)
    theirs = pipeline("fill-mask", str(tmp_path), top_k=3, device="cpu")
    texts = ["the [MASK] sat on the mat", "[MASK] is very happy not sad"]
    made = loaded(tmp_path, top_k=3)
    for text, found in zip(texts, made(texts), strict=True):
        wanted = theirs(text)
        assert [each["token"] for each in found] == [each["token"] for each in wanted]
        assert [each["sequence"] for each in found] == [each["sequence"] for each in wanted]
        close([each["score"] for each in found], [each["score"] for each in wanted])
    for bad in ("the cat", "[MASK] [MASK]", LONG + "[MASK]"):
        assert isinstance(made([bad])[0], BadRequest)


@pytest.mark.parametrize(
    "named", [None, "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"]
)
def test_scores_are_those_of_sentence_transformers(tmp_path, named):
    from sentence_transformers import CrossEncoder

    extra = {"sentence_transformers": {"activation_fn": named, "version": "4.1.0"}} if named else {}
    models.bert(BertForSequenceClassification, tmp_path, num_labels=1, **extra)
    pairs = [["she is happy", text] for text in TEXTS]
    wanted = CrossEncoder(str(tmp_path), device="cpu").predict(pairs)
    made = loaded(tmp_path)
    close(made(pairs), wanted)
    close(made([{"query": a, "document": b} for a, b in pairs]), wanted)
    assert isinstance(made(["one text"])[0], BadRequest)


def test_images_are_labelled_as_by_transformers(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification
    from transformers import pipeline as make

    torch.manual_seed(1)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    names = {"id2label": {at: f"L{at}" for at in range(7)}}
    ViTForImageClassification(
        ViTConfig(**sizes, image_size=16, patch_size=8, initializer_range=0.5, **names)
    ).save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    image = PIL.Image.effect_noise((40, 30), 80).convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG")
    made = loaded(tmp_path)
    wanted = make("image-classification", str(tmp_path), device="cpu")(image)
    for found in made([file.getvalue(), np.asarray(image)]):
        assert [each["label"] for each in found] == [each["label"] for each in wanted]
        close([each["score"] for each in found], [each["score"] for each in wanted])
    bad = made([b"no image", file.getvalue()[:200], "text", None, np.zeros(3)])
    assert [type(each) for each in bad] == [BadRequest] * 5


def test_weights_of_another_task_are_refused(tmp_path):
    models.bert(BertModel, tmp_path)
    with pytest.raises(ConfigError, match="are of BertModel and lack cls"):
        loaded(tmp_path, task="fill-mask")
