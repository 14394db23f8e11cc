"""Seeing inside a network: what its neurons do along a text, what they track, and what surprises it."""
