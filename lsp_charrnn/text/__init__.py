"""Documents as bytes, positions in the client's encoding, and the symbols that the model reads."""
