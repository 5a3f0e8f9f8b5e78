"""Recurrent networks in JAX and Flax, reproducible to the bit, for one seed or a thousand.

Every public name is here, and is imported when it is first used: `import jaxrnn` alone imports
neither JAX nor Flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "cells": "CELLS DeltaNetCarry DeltaNetCell ElmanCell GRUCell GatedDeltaNetCell IndRNNCell"
    " LRUCarry LRUCell LSTMCarry LSTMCell MLSTMCarry MLSTMCell MinGRUCell MinLSTMCell RGLRUCell"
    " SLSTMCarry SLSTMCell URLSTMCell register_cell",
    "layers.recurrent": "Recurrent",
    "layers.stack": "Bidirectional Stack",
    "layers.functional": "GRUParams LSTMParams gru lstm",
    "layers.fused": "FusedCell register_fused_cell",
    "layers.gates": "read_gates",
    "losses": "sequence_binary_cross_entropy sequence_cross_entropy sequence_squared_error",
    "models": "EncoderDecoder LanguageModel SequenceClassifier SequenceModel",
    "types": "Batch",
    "tasks": "Classification Digits JapaneseVowels LabelledFile MNIST1D"
    " Adding CopyMemory Forecasting Language Lorenz MackeyGlass MeasuredSeries"
    " Music NextCharacter SelectiveCopy Sine TASKS Task TemporalOrder register_task",
    "tasks.grammars": "ContinualReber Counting Dyck EmbeddedReber",
    "tasks.sequence_to_sequence": "Addition Dates Pronunciation Reverse SequenceToSequence Sort",
    "tasks.regular": "CycleNavigation EvenPairs ModularArithmetic Parity Permutations",
    "training.config": "ExperimentConfig InitFrom TF1Weights TrainConfig",
    "training.mesh": "MeshShape",
    "training.step": "TrainState init_state make_train_step",
    "training.loop": "make_train",
    "runs.runner": "resume run",
    "runs.sweep": "resume_sweep sweep",
    "runs.verification": "verify",
    "runs.loading": "load",
    "export.run": "export_run",
}
_HOME = {name: f"jaxrnn.{home}" for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from jaxrnn.cells import (
        CELLS,
        DeltaNetCarry,
        DeltaNetCell,
        ElmanCell,
        GatedDeltaNetCell,
        GRUCell,
        IndRNNCell,
        LRUCarry,
        LRUCell,
        LSTMCarry,
        LSTMCell,
        MinGRUCell,
        MinLSTMCell,
        MLSTMCarry,
        MLSTMCell,
        RGLRUCell,
        SLSTMCarry,
        SLSTMCell,
        URLSTMCell,
        register_cell,
    )
    from jaxrnn.export.run import export_run
    from jaxrnn.layers.functional import GRUParams, LSTMParams, gru, lstm
    from jaxrnn.layers.fused import FusedCell, register_fused_cell
    from jaxrnn.layers.gates import read_gates
    from jaxrnn.layers.recurrent import Recurrent
    from jaxrnn.layers.stack import Bidirectional, Stack
    from jaxrnn.losses import (
        sequence_binary_cross_entropy,
        sequence_cross_entropy,
        sequence_squared_error,
    )
    from jaxrnn.models import EncoderDecoder, LanguageModel, SequenceClassifier, SequenceModel
    from jaxrnn.runs.loading import load
    from jaxrnn.runs.runner import resume, run
    from jaxrnn.runs.sweep import resume_sweep, sweep
    from jaxrnn.runs.verification import verify
    from jaxrnn.tasks import (
        MNIST1D,
        TASKS,
        Adding,
        Classification,
        CopyMemory,
        Digits,
        Forecasting,
        JapaneseVowels,
        LabelledFile,
        Language,
        Lorenz,
        MackeyGlass,
        MeasuredSeries,
        Music,
        NextCharacter,
        SelectiveCopy,
        Sine,
        Task,
        TemporalOrder,
        register_task,
    )
    from jaxrnn.tasks.grammars import ContinualReber, Counting, Dyck, EmbeddedReber
    from jaxrnn.tasks.regular import (
        CycleNavigation,
        EvenPairs,
        ModularArithmetic,
        Parity,
        Permutations,
    )
    from jaxrnn.tasks.sequence_to_sequence import (
        Addition,
        Dates,
        Pronunciation,
        Reverse,
        SequenceToSequence,
        Sort,
    )
    from jaxrnn.training.config import ExperimentConfig, InitFrom, TF1Weights, TrainConfig
    from jaxrnn.training.loop import make_train
    from jaxrnn.training.mesh import MeshShape
    from jaxrnn.training.step import TrainState, init_state, make_train_step
    from jaxrnn.types import Batch


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'jaxrnn' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
