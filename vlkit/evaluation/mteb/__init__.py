"""mteb's image-text tasks on any model."""
