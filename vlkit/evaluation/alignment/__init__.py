"""How close a model puts texts that say the same thing in two languages, layer by layer."""
