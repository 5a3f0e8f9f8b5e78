"""Models: inputs -> recurrent layers -> readout."""

from jaxrnn.models.classifier import SequenceClassifier
from jaxrnn.models.encoder_decoder import EncoderDecoder
from jaxrnn.models.sequence import LanguageModel, SequenceModel

__all__ = ["EncoderDecoder", "LanguageModel", "SequenceClassifier", "SequenceModel"]
