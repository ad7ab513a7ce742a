"""Chapters of the Optimization Guide: a question, what was measured, the rule of thumb with its range, settings to copy."""
