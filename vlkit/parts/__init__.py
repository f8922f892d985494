"""The parts that models are made of, from other libraries: encoders, their tokenizers, where their weights are from."""
