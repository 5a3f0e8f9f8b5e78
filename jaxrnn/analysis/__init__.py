"""Summaries, plots and inspection pages, made from runs."""
