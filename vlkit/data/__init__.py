"""Sources of image-text pairs, language mixing, augmentation, data set builders."""
