"""Text as numbers and back: tokenizers, corpora, sampling."""
