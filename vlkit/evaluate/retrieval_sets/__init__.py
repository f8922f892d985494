"""Readers of published retrieval sets from the user's own copies; nothing is downloaded or bundled."""
