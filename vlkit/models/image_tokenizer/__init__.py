"""An image tokenizer that learns to give images back, before other models use its codes."""
