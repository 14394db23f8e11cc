"""Held-out quality: bits per character, and keystrokes saved by replayed typing through the real server."""
