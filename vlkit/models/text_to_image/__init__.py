"""A language model that makes images: it foretells the codes of an image tokenizer."""
