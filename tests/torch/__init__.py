"""Tests of models on torch."""
