"""Losses that let a model learn from another one."""
