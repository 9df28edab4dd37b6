"""Programs that measure zstreamer, each against a reference in the same run; see scripts/bench."""
