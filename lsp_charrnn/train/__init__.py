"""Corpus, network in torch, training loop, and export to a model directory: the only package that imports torch."""
