"""The starter model, real weights: what INT8 and INT4 do to its text. The ten prompts are docs/inside/answers.md's."""

from pathlib import Path

import pytest

from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, KvBits, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.events import Finished
from localinfer.hub.starter import ensure_source
from localinfer.quantize import quantize_checkpoint
from tests.cost.peaks import peak

PROMPTS = (
    "Count from 1 to 20.",
    "How many days are in a week?",
    "What is a prime number?",
    "Give me a recipe for pancakes.",
    "List the months of the year.",
    "What color is the sky?",
    "Name a famous painter.",
    "What is the largest ocean?",
    "What is the chemical symbol for water?",
    "What is the largest ocean on Earth?",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The starter from its package, as bf16 (16) and at each width."""
    home = tmp_path_factory.mktemp("starter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALINFER_HOME", str(home))
        patch.setenv("HF_HOME", str(home / "hf"))
        source = ensure_source("starter", offline=True).path
    made = {16: source}
    for bits in (8, 4, 3):
        made[bits] = home / f"INT{bits}"
        quantize_checkpoint(source, made[bits], bits=bits, threads=2)
    return made


def answers(
    folder: Path, prompts: tuple[str, ...], tokens: int, kv_bits: KvBits = 16
) -> list[tuple[tuple[int, ...], str]]:
    """Greedy ids and text of each prompt's first `tokens` tokens."""
    found = []
    with open_engine(folder, EngineConfig(kv_bits=kv_bits, context=512, threads=2)) as engine:
        for prompt in prompts:
            chat = Chat(engine, sampling=SamplingParams(temperature=0, max_tokens=tokens))
            last = [event for event in chat.reply(prompt) if isinstance(event, Finished)][-1]
            found.append((last.token_ids, chat.messages[-1].content))
    return found


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_memory_is_what_was_predicted(folders: dict[int, Path], bits: int) -> None:
    """Within 5 %."""
    found = peak(folders[bits], 512)
    assert abs(found.error) < 0.05, f"{found.predicted / 1e6:.1f} MB predicted, {found.real / 1e6:.1f} MB"


def test_int8_text_is_bf16_text(folders: dict[int, Path]) -> None:
    pairs = zip(answers(folders[16], PROMPTS, 20), answers(folders[8], PROMPTS, 20), strict=True)
    same = [plain[0] == small[0] for plain, small in pairs]
    assert sum(same) >= 8, same


def test_int8_and_int4_answer_sensibly(folders: dict[int, Path]) -> None:
    asked = ("What is the capital of France?", "What is the chemical symbol for water?", "Why is the sky blue?")
    for bits, known in ((16, 3), (8, 3), (4, 2)):  # by 4 bits it does not know the third, with an exact cache either
        said = [text for _, text in answers(folders[bits], asked[:known], 40, kv_bits=8)]
        found = [word in text for word, text in zip(("Paris", "H2O", "Rayleigh")[:known], said, strict=True)]
        assert all(found), said


def test_int3_runs(folders: dict[int, Path]) -> None:
    ((ids, _),) = answers(folders[3], ("Why is the sky blue?",), 16)
    assert ids
