"""Metrics, the scores of a run, and the calibration of the Degraded columns."""
