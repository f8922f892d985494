"""Losses that a Q-Former learns from."""
