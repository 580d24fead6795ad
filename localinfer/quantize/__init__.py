"""Making a model small: the best integers and scales for its weights, written so that a stop loses nothing."""

from localinfer.quantize.checkpoint import quantize_checkpoint
from localinfer.quantize.report import QuantizeReport

__all__ = ["QuantizeReport", "quantize_checkpoint"]
