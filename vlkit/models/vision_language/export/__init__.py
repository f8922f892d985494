"""Vision-language models written for transformers, each checked by loading it there again."""
