"""Errors, files, logging, random numbers, threads and array types."""
