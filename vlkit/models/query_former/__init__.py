"""A Q-Former that learns from pairs of images and texts, before it becomes a bridge."""
