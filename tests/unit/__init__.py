"""Tests of single modules, in this process: no broker, no worker, no clock but their own."""
