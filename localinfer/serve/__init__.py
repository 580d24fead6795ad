"""The server: protocols that other programs speak, over one engine a model."""
