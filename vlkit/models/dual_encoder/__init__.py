"""Two encoders with heads into one shared space (CLIP, LiT, SigLIP, M2-Encoder)."""
