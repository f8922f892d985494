"""Published sets of questions about images, from a user's own copies, as plain records."""
