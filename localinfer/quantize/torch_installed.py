"""Whether torch is installed: it comes with an extra, and nothing but `gptq`, `awq` and training needs it."""

import importlib.util

from localinfer.errors import NotSupported
from localinfer.extras import install_command

TORCHLESS = ("rtn", "imatrix")
"""Methods that the core does by itself."""


def has_torch() -> bool:
    """Look for it without loading it."""
    return importlib.util.find_spec("torch") is not None


def require_torch(job: str, *, instead: str) -> None:
    """Raise `NotSupported` if torch is not here: `job` needs it, `instead` is what can be done without it."""
    if not has_torch():
        raise NotSupported(
            f"{job} needs torch, which is not installed", hint=f"run `{install_command('quantize')}`, or {instead}"
        )


def require_torch_for(method: str, *, mixed: bool, refine: bool) -> None:
    """Raise `NotSupported` if what is asked of `quantize` needs torch and it is not here."""
    if refine:
        require_torch("refining", instead="leave it out")
    if mixed:
        require_torch("choosing widths", instead="leave out what mixes them, such as `--bpw`")
    if method not in TORCHLESS:
        require_torch(f"calibrating by {method}", instead="calibrate without it: `--method imatrix`")
