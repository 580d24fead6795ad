"""What tells that an engine is in another process, without any of its parts."""


class Elsewhere:
    """A tokenizer of such an engine: forms for it are read there."""
