"""Results in files, with where they come from."""
