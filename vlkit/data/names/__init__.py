"""Names of classes in many languages, and the prompt templates they stand in."""
