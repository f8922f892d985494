"""Contrastive losses: one family of functions with one gradient convention."""
