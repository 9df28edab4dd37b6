"""Tests of the documents and the examples: they run, and say what is so."""
