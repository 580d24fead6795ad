"""What a smaller model lost: perplexity, KL divergence and agreement, through the kernels that will serve it."""

from localinfer.evaluate.quality import Quality
from localinfer.evaluate.run import CHUNKS, CTX, CacheLoss, cache_losses, evaluate, report_on
from localinfer.evaluate.text import held_out_text, read_text

__all__ = [
    "CHUNKS",
    "CTX",
    "CacheLoss",
    "Quality",
    "cache_losses",
    "evaluate",
    "held_out_text",
    "read_text",
    "report_on",
]
