"""The heads as PyTorch modules: encoders, classification and mask heads, losses."""
