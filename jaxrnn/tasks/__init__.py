"""The tasks, one a file: pure functions of a key that make batches."""
