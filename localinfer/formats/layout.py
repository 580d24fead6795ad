"""What the files of a Hugging Face directory are called. Names only: listing models must load nothing heavy."""

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_LIMIT = 64 << 20
"""Bytes that an index may have."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Endings of pickled weights: they can run code and are never opened."""
