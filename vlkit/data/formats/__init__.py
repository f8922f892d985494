"""File formats: archives, tar indices, parquet, trees of images, and how images and captions stand in them."""
