"""The terminal app. Nothing else imports this package."""

import os

os.environ.setdefault("TEXTUAL_FPS", "20")
# Textual reads it when it is imported. Its own 60 lays the screen out several times for one piece of an answer, and
# takes the processor from the engine: 64 tokens/s with it where 20 gives 81.
