"""Faults on real processes and real connections under constant load; see scripts/chaos."""
