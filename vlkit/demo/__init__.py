"""A page in the browser to try models on: each tab is there for the models that can do what it shows."""
