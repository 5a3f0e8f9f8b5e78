"""What a run may end in, other than its end. `cli` makes one line and an exit code of each."""


class SettingError(ValueError):
    """A setting is out of range, or does not fit the others. Exit code 2."""


class RunError(Exception):
    """A run cannot be made, or gone on with, until the user mends something. Exit code 2."""


class DivergedError(ArithmeticError):
    """A loss or gradient is not finite, and no seed is left to go on with. Exit code 3."""
