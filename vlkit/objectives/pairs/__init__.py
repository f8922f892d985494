"""Losses over pairs of images and texts."""
