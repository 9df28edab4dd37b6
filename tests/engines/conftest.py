"""What needs an engine is collected only where `scripts/engines` runs it."""

import os

collect_ignore_glob = []
if "ZSTREAMER_TEST_ENGINE" not in os.environ:
    collect_ignore_glob += [
        "test_ray.py",
        "test_slurm.py",
        "test_kubernetes*.py",
        "test_upgrades.py",
    ]
