"""Data sets that vlkit builds itself, and shards written again."""
