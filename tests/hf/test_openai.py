"""The clients that people have, against a gateway that serves the model which a package ships."""

import base64
import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import until
from zstreamer.hf.source import folder_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
pytestmark = pytest.mark.timeout(180)  # a busy machine takes long to import torch


@pytest.fixture(scope="module")
def url():
    """The one command, with a model that it knows as `default`, without a network."""
    http, *ports = (str(free_port()) for _ in range(3))
    command = ["up", f"hf:{MINILM}", "--http", http, "--port", ports[0], "--worker-port", ports[1]]
    process = subprocess.Popen(
        [sys.executable, "-m", "zstreamer", *command, "--http-port", "0", "--log-level", "error"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    url = f"http://127.0.0.1:{http}"

    def ready():
        assert process.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/readyz").status_code == 200

    try:
        until(ready, 120)
        yield url
    finally:
        process.terminate()
        assert process.wait(60) == 0


def folder_of_minilm():
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return folder_of(MINILM)


def reference(texts):
    """The vectors by hand: the mean of the tokens' vectors, with length 1."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of_minilm())
    model = AutoModel.from_pretrained(folder_of_minilm()).eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), 100):
            part = tokenizer(
                texts[start : start + 100],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            hidden = model(**part).last_hidden_state * part["attention_mask"][..., None]
            found.append(torch.nn.functional.normalize(hidden.sum(1), dim=-1))
    return torch.cat(found).numpy()


@pytest.fixture
def client(url):
    patient = {"X-Request-Timeout": "120"}  # on a busy machine the model is slow
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, default_headers=patient
    ) as client:
        yield client


def test_embeddings_from_many_threads_are_the_models_own(client):
    texts = [f"text number {at} about {'cats and ' * (at % 7)}dogs" for at in range(100)]

    def embed(text):
        return (
            client.embeddings.create(model="text-embedding-3-small", input=text).data[0].embedding
        )

    with ThreadPoolExecutor(32) as pool:
        found = np.array([*pool.map(embed, texts)])
    assert np.abs(found - reference(texts)).max() < 1e-3


def test_lists_token_ids_formats_and_dimensions_agree(client):
    texts = ["hello world", "a cat sat on the mat"]
    wanted = reference(texts)
    tokenizer = AutoTokenizer.from_pretrained(folder_of_minilm())
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for given in (texts, ids):
        for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            found = client.embeddings.create(model="default", input=given, **more)
            vectors = [each.embedding for each in found.data]
            if more.get("encoding_format") == "base64":
                vectors = [np.frombuffer(base64.b64decode(v), "<f4") for v in vectors]
            np.testing.assert_allclose(vectors, wanted, atol=1e-3)
            assert found.usage.prompt_tokens == sum(map(len, ids)) + 4, "with those around a text"
            assert found.model == "default"
    (short,) = client.embeddings.create(model="default", input=ids[0], dimensions=64).data
    cut = wanted[0][:64] / np.linalg.norm(wanted[0][:64])
    np.testing.assert_allclose(short.embedding, cut, atol=1e-3)


def test_models_are_listed_and_found(client):
    assert [each.id for each in client.models.list()] == ["default"]
    assert client.models.retrieve("default").id == "default"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_errors_are_those_of_the_client(client):
    with pytest.raises(openai.BadRequestError, match="dimensions: the model's vectors have 384"):
        client.embeddings.create(model="default", input="x", dimensions=999)
    with pytest.raises(openai.BadRequestError, match="token ids are the model's own") as caught:
        client.embeddings.create(model="default", input=[10**6])
    assert caught.value.code == "bad_request"


def test_an_async_client_works_the_same(url):
    import asyncio

    async def embed():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await client.embeddings.create(model="m", input="hello world")

    found = asyncio.run(embed()).data[0].embedding
    np.testing.assert_allclose(found, reference(["hello world"])[0], atol=1e-3)


def test_the_other_routes_serve_it_too(url):
    found = httpx.post(f"{url}/v1/models/default:predict", json={"instances": ["hello world"]})
    np.testing.assert_allclose(found.json()["predictions"], reference(["hello world"]), atol=1e-3)
    tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "data": ["hello world"]}
    found = httpx.post(f"{url}/v2/models/default/infer", json={"inputs": [tensor]}).json()
    assert found["outputs"][0]["shape"] == [1, 384]
