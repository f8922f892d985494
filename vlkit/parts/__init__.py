"""Adapters to the outside world: encoders, tokenizers, and where their weights come from."""
