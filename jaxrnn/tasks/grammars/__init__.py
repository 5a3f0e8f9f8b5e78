"""Grammars: read a string symbol by symbol, and predict what may come next. One task per file."""

from jaxrnn.tasks.grammars.continual_reber import ContinualReber
from jaxrnn.tasks.grammars.counting import Counting
from jaxrnn.tasks.grammars.dyck import Dyck
from jaxrnn.tasks.grammars.embedded_reber import EmbeddedReber

__all__ = ["ContinualReber", "Counting", "Dyck", "EmbeddedReber"]
