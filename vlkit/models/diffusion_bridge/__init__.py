"""A multilingual text encoder that tells an English diffusion model what to paint."""
