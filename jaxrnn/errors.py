"""The exceptions that end a run. The command line prints one line and exits with a code for each.

Wrong arrays raise ValueError or TypeError.
"""


class SettingError(ValueError):
    """A setting is out of range or contradicts another one. Exit code 2."""


class RunError(Exception):
    """A run cannot start or resume until the user fixes a problem. Exit code 2."""


class DivergedError(ArithmeticError):
    """The loss or gradient of every seed is infinite or NaN. Exit code 3."""
