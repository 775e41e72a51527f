"""Metrics, evaluations, comparisons and calibration."""
