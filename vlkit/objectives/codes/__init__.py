"""Losses over codes of images: what a tokenizer learns from, and what is learned of its codes."""
