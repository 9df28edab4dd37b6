"""Runs the tests marked `gevent` in a process that gevent patched before anything else."""

# ruff: noqa: E402 - the patch must come before whatever it patches is imported

from gevent import monkey

monkey.patch_all()

import sys

import pytest

sys.exit(pytest.main(["-m", "gevent", *sys.argv[1:]]))
