"""Whole clusters of the real cores under virtual time, with seeded faults."""
