"""Whole image-text-to-text models of transformers, as they are."""
