"""What a user sees of a run: progress, report, pictures."""
