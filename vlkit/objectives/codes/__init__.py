"""Losses over the codes of images."""
