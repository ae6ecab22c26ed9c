"""Measuring: manifests, word and letter error rates."""
