"""Regular languages: train on short strings, test on long ones. One task per file.

They are the regular tasks of Delétang et al. (2023), "Neural networks and the Chomsky hierarchy",
and the word problem of permutations, as in Merrill, Petty and Sabharwal (2024), "The illusion of
state in state-space models", and Grazzi et al. (2025), "Unlocking state-tracking in linear RNNs
through negative eigenvalues".
"""

from jaxrnn.tasks.regular.cycle_navigation import CycleNavigation
from jaxrnn.tasks.regular.even_pairs import EvenPairs
from jaxrnn.tasks.regular.modular_arithmetic import ModularArithmetic
from jaxrnn.tasks.regular.parity import Parity
from jaxrnn.tasks.regular.permutations import Permutations

__all__ = ["CycleNavigation", "EvenPairs", "ModularArithmetic", "Parity", "Permutations"]
