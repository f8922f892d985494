"""Plain torch modules that know widths, not names."""
