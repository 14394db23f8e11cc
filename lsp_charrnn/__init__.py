"""A code-autocompletion language server with a streaming character-level LSTM."""

__version__ = "0.1.0"
