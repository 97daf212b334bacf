"""Metrics on images in [0, 1]: per image first, then pooled."""
