"""What three packages or more use: errors, files, random numbers, logs, the experiment and its configuration."""

__version__ = "0.1.0"
