"""Losses over the tokens that a language model writes."""
