"""Training runs on disk: start, log, checkpoint, resume, verify, load."""
