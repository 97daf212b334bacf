"""Metrics, the evaluator of a run, the scores table, and the calibration of the Degraded columns."""
