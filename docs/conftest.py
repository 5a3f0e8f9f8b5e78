"""The site's settings and built pages are not tests."""

collect_ignore = ["conf.py", "ext", "api", "_build"]
