"""Making a model small: the best integers and scales for its weights, written so that a stop loses nothing."""

from localinfer.quantize.calibration import DEFAULT_TOKENS, CalibrationText
from localinfer.quantize.checkpoint import quantize_checkpoint
from localinfer.quantize.journal import Earlier
from localinfer.quantize.plan import METHODS, Method, default_method
from localinfer.quantize.refine import Refining, refine_checkpoint
from localinfer.quantize.report import QuantizeReport

__all__ = [
    "DEFAULT_TOKENS",
    "METHODS",
    "CalibrationText",
    "Earlier",
    "Method",
    "QuantizeReport",
    "Refining",
    "default_method",
    "quantize_checkpoint",
    "refine_checkpoint",
]
