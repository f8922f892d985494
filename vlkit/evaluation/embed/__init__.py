"""Images and texts to embeddings, each once."""
