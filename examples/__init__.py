"""Runnable examples; start with ``bert_model``, the model that the others serve."""
