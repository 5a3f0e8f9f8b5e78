"""The tasks, one a file: pure functions of a key that make batches.

`TASKS` has those that can be made of any length and batch size: `TASKS["adding"](length=400)`.
`NextCharacter` is made from a text.
"""

from jaxrnn.tasks.adding import Adding
from jaxrnn.tasks.copy_memory import CopyMemory

TASKS = {"adding": Adding, "copy": CopyMemory}
"""By name, for command lines: classes that take `length=` and `batch_size=`."""
