"""Tests of real processes: brokers, workers, clients, the command line."""
