"""What is evaluated, and how each kind of task is scored."""
