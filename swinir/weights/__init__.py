"""Weights files of unknown origin: checks, safe loading, downloads, and the networks inferred from them."""
