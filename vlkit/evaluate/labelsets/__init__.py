"""Names of one list of classes in many languages: files of others, builders, and what to know of them."""
