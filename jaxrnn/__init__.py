"""Recurrent networks in JAX and Flax: small pure functions, reproducible to the bit.

Read in this order: `types` (the axis letters), `cells.lstm`, `unroll`, `recurrent`, `models`,
`train`, `study`, `experiment`.
"""

__version__ = "0.1.0"
