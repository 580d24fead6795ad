"""A Mistral config without `sliding_window` has a window of 4096; one with null has none."""

from pathlib import Path

from tests.cases.right import change_config, greedy, ours
from tests.cli.conftest import Cli
from tests.tiny import make_checkpoint

TEXT = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(4900))


def test_a_window_that_is_left_out(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "mistral", seed=4, max_position_embeddings=8192)
    said = {}
    for window in (None, ...):
        change_config(path, sliding_window=window)
        right = greedy(path, TEXT, 8)
        assert ours(cli, path, TEXT, 8, "-c", "8192") == right
        said[window] = right
    assert said[None] != said[...]


def test_a_number_of_key_heads_that_is_left_out(cli: Cli, tmp_path: Path) -> None:
    """Eight, where config.json has none; null is as many as there are queries."""
    for heads, said in ((8, ...), (16, 16)):
        path = make_checkpoint(
            tmp_path / str(heads), "mistral", num_attention_heads=16, num_key_value_heads=heads, head_dim=16
        )
        change_config(path, num_key_value_heads=said)
        assert ours(cli, path, "Hello world", 8) == greedy(path, "Hello world", 8)
