"""Streaming state, decoding, filters, and the session that ties them: bytes and offsets, no protocol, no I/O."""
