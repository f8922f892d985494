"""Models made of parts, and how they are built, frozen, saved and loaded."""
