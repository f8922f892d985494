"""Typed, frozen descriptions of all that vlkit builds; importing them loads no torch."""
