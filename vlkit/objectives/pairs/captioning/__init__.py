"""Losses that read one side token by token with the help of the other: captioning, masked text, masked image."""
