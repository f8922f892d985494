"""Losses; each is called as objective(model, batch) and returns a Loss."""
