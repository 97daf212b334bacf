"""coldbench: replication suite for "Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise"."""

__version__ = "0.1.0"
