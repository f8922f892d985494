"""Two evaluations side by side, and beside published figures."""
