"""The suites of `benchmark.py`, and the peers that they compare with."""
