"""Dual encoders written in the formats of other libraries, each checked by loading it there again."""
