"""Shards read in windows, without an index of all samples."""
