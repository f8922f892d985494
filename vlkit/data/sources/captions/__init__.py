"""Published sets of captioned images, read from the user's own copies; nothing is downloaded or bundled."""
