"""`--effort`: a method, a number of tokens and a training, chosen together by what they cost and win."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from localinfer.errors import UsageError
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.calibration import DEFAULT_TOKENS
from localinfer.quantize.plan import Method, default_method
from localinfer.quantize.refine import Refining

Effort = Literal["quick", "default", "best"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How integers are chosen: `method`, calibrated on `tokens` at most, then trained by `refine`."""

    method: Method
    tokens: int
    refine: Refining | None = None
    effort: Effort | None = None
    """What chose it; None where a method was given."""

    @property
    def flags(self) -> str:
        """The flags that ask for the same."""
        tokens = "" if self.method == "rtn" else f" --tokens {self.tokens}"
        return f"--method {self.method}{tokens}{f' --refine {self.refine}' if self.refine else ''}"

    @property
    def words(self) -> str:
        """`gptq on 32768 tokens, then --refine kl`."""
        read = "" if self.method == "rtn" else f" on {self.tokens} tokens"
        then = f", then --refine {self.refine}" if self.refine else ""
        return f"{self.method}{read}{then}{f' (--effort {self.effort})' if self.effort else ''}"


RECIPES: dict[Effort, Recipe] = {
    "quick": Recipe("awq", 4096, effort="quick"),
    "default": Recipe("gptq", DEFAULT_TOKENS, effort="default"),
    "best": Recipe("awq+gptq", DEFAULT_TOKENS * 3 // 2, "kl", "best"),
}
"""Of 4 and 3 bits; docs/inside/quantization.md has what each costs and loses. `best` leaves some of our own text
unread, for the training to be judged by."""


WITHOUT_TORCH = Recipe("imatrix", 4096)
"""Of any effort, of 4 and 3 bits: means of squares need fewer tokens than second moments do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. Raises `UsageError` for an effort beside a method, since each chooses the other."""

    effort: Effort | None = None
    method: Method | None = None
    tokens: int | None = None
    refine: Refining | Literal["none"] | None = None

    def __post_init__(self) -> None:
        if self.effort and self.method:
            raise UsageError(
                f"`--effort {self.effort}` chooses a method, and `--method {self.method}` is another way to choose one",
                hint=f"leave one out; below 8 bits `--effort {self.effort}` is `{RECIPES[self.effort].flags}`",
            )


MOST_TEXT = 4
"""Times as many tokens are read for a mixture of experts at most, since each expert sees a part of them."""


def _for_experts(recipe: Recipe, remark: str, source: Path) -> tuple[Recipe, str]:
    """What there is of `recipe`, which an effort chose, for a mixture of experts; others keep it."""
    if recipe.method == "rtn":
        return recipe, remark
    graph = Checkpoint(source).graph
    if graph.spec.mixture is None:
        return recipe, remark
    if recipe.refine is not None and graph.not_trained:
        recipe, remark = replace(recipe, refine=None), f"not trained any further: {graph.not_trained} cannot be"
    parts = graph.spec.mixture.experts / graph.spec.mixture.chosen
    return replace(recipe, tokens=int(recipe.tokens * min(MOST_TEXT, max(1, parts / MOST_TEXT)))), remark


def recipe_of(asked: Asked, bits: int, source: Path) -> tuple[Recipe, str]:
    """What is asked for, for the model at `source`, and a remark where an effort can do less there than elsewhere.

    At 8 bits rounding to the nearest loses too little for anything else to win, and what nobody calibrates is rounded
    so as well. Where torch is lacking, `imatrix` calibrates.
    """
    recipe, remark = Recipe(asked.method or "rtn", DEFAULT_TOKENS), ""
    if asked.method is None:
        effort = asked.effort or "default"
        method, remark = default_method(bits, source)
        if method == "imatrix":
            recipe = replace(WITHOUT_TORCH, effort=effort)
        else:
            recipe = RECIPES[effort] if method != "rtn" else replace(recipe, effort=effort)
        recipe, remark = _for_experts(recipe, remark, source)
    if asked.refine is not None:
        recipe = replace(recipe, refine=None if asked.refine == "none" else asked.refine)
    return replace(recipe, tokens=asked.tokens or recipe.tokens), remark
