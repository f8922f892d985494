"""Losses of what a denoiser is told."""
