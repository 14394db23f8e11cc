"""The project around the open documents: which of its files may be read, and their text. No protocol, no model."""
