"""Tiny models with random weights, in folders as save_pretrained writes them."""

import json

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [
    *("the", "a", "cat", "dog", "sat", "on", "mat", "ada", "lives", "in", "london", "she"),
    *("is", "happy", "sad", "good", "bad", "not", "very"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(length=16):
    """A tokenizer of these few words."""
    found = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    found.normalizer = normalizers.Lowercase()
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    found.add_special_tokens(SPECIAL)
    names = ("pad", "unk", "cls", "sep", "mask")
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        model_max_length=length,
        **{f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)},
    )


def bert(cls, folder, **config):
    """A tiny BERT of a class of transformers, saved with its tokenizer; the module."""
    from transformers import BertConfig

    torch.manual_seed(1)
    sizes = {
        "vocab_size": len(SPECIAL + WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.5,
    }
    module = cls(BertConfig(**sizes, **config)).eval()
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return module


def sentences(folder, steps, **files):
    """Make a folder one of sentence-transformers: steps by kind, each with its config."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    for at, (kind, config) in enumerate(steps, 1):
        path = f"{at}_{kind}"
        (folder / path).mkdir()
        if config:
            (folder / path / "config.json").write_text(json.dumps(config))
        kind = f"sentence_transformers.models.{kind}"
        modules.append({"idx": at, "name": str(at), "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
