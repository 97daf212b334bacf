"""Samplers, where they start, and the images that they make: shards, trajectories, restored files."""
