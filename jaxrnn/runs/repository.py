"""The state of the git repository that some code is in."""

import hashlib
import os
from pathlib import Path
from typing import Any

from jaxrnn.runs.machine import output_of


def root_of(file: Path) -> Path | None:
    """Find the root of a file's git repository; None for a file that pip installed."""
    if not {"site-packages", "dist-packages"}.isdisjoint(file.parts):
        return None  # a virtual environment inside some repository is not part of it
    return next((folder for folder in file.parents if (folder / ".git").exists()), None)


def state_of(root: Path) -> dict[str, Any] | None:
    """Describe the state of a git repository in JSON values.

    Untracked files are ignored, because listing them can take long.

    Returns:
      "commit": 40 hexadecimal digits; None before the first commit;
      "dirty": whether a tracked file has uncommitted changes;
      "changes": the SHA-256 of those changes, which tells two dirty states apart.
      None if git is not installed or fails.
    """
    # A git hook sets GIT_DIR and more, which would point at another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # read-only

    def git(*arguments: str) -> bytes | None:
        command = ("git", "-C", str(root), "-c", "core.fsmonitor=false", *arguments)
        return output_of(*command, environment=environment)

    status = git("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status.decode("utf-8", "replace").splitlines()
    named = dict(line.split(maxsplit=2)[1:] for line in lines if line.startswith("# branch."))
    commit = named.get("branch.oid", "(initial)")
    dirty = any(not line.startswith("#") for line in lines)
    diff = git("diff", "HEAD", "--no-ext-diff", "--no-textconv") if dirty else None
    return {
        "commit": None if commit == "(initial)" else commit,
        "dirty": dirty,
        "changes": None if diff is None else hashlib.sha256(diff).hexdigest(),
    }
