"""How fast recording, verifying and replaying are: ratios against peers in one run. ``python -m benchmarks``."""
