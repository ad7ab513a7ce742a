"""Chapters of the Optimization Guide: from the runs of one experiment to a measurement, a rule of thumb and settings to copy."""
