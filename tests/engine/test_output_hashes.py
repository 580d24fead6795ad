"""The bits that are kept in `output_hashes.json`, computed in ways drawn by lot; all of them: `output_hashes.py`."""

import random
from pathlib import Path

from localinfer import native
from tests.engine.output_hashes import Case, Hasher, all_cases, differences, known_hashes

SAMPLE = random.Random(3).sample(all_cases(), 6)


def test_the_same_bits_as_are_kept(tmp_path: Path) -> None:
    assert known_hashes().keys() == {str(case) for case in all_cases()}
    hasher, isas = Hasher(tmp_path), native.supported_isas()
    for i, case in enumerate(SAMPLE):
        assert differences(hasher, [case], [isas[-1 - i % len(isas)]], seed=i) == []


def test_control_other_weights_have_other_hashes(tmp_path: Path) -> None:
    hasher = Hasher(tmp_path)
    hasher.model = lambda name, _: Hasher(tmp_path).model(name, "INT4")
    assert len(differences(hasher, [Case("qwen3", "INT8", 8)], ["scalar"], seed=0)) == 1
