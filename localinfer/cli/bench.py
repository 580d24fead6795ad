"""d"""

from localinfer.cli import options as o


def bench(*, json: o.Json) -> None:
    """d"""
