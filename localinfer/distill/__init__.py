"""Small models that guess for a large one, distilled from it on this machine."""

from localinfer.distill.train import DEFAULT_MINUTES, Result, train_drafter

__all__ = ["DEFAULT_MINUTES", "Result", "train_drafter"]
