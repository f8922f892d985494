"""Results to look at: pages, charts, tables."""
