"""The broker: what runs between clients and workers. Needs the base dependencies only."""
