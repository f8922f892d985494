"""Figures of rankings, their intervals and correlations."""
