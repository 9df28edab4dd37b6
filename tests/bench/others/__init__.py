"""Peers of zstreamer behind the same models: programs for environments of their own, without it."""
