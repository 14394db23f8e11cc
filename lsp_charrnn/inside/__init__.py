"""Seeing inside a network: what its neurons do, and the experiments that the project grew from."""
