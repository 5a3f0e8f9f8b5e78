"""The suites of `benchmark.py`, and the peers that they stand beside."""
