"""Vision-language models: an image encoder, a bridge, and a language model that reads what it gives."""
