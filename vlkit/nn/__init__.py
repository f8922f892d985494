"""Plain torch modules that models are built of; they know widths, neither names nor specs."""
