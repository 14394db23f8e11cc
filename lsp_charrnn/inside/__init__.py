"""Seeing inside a network: what its neurons do along a text, what surprises it, and the seeds' experiments."""
