"""A small real masked-language model that needs no model hub; see README.md in this folder."""

from examples.small_bert.loader import load_small_bert

__all__ = ["load_small_bert"]
