"""Real text: what a client gets of the starter is what `run` prints, bit for bit."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from localinfer.hub.starter import ensure_source
from tests.serve.conftest import PATIENCE_S, ROOT, Server, serving

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the starter, as bf16."""
    home = tmp_path_factory.mktemp("starter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALINFER_HOME", str(home / "localinfer"))
        patch.setenv("HF_HOME", str(home / "hf"))
        ensure_source("starter", offline=True)
    return home


@pytest.fixture(scope="module")
def starter(home: Path) -> Iterator[Server]:
    with serving(home, "starter", "--offline", "--draft", "off") as running:
        yield running


def test_a_client_gets_what_run_prints(home: Path, starter: Server) -> None:
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {"LOCALINFER_HOME": str(home / "localinfer"), "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-m", "localinfer", "run", "starter", "Name three rivers.", "--seed", "11", "-n", "60"]
    ran = subprocess.run(
        [*command, "--temp", "0.9", "--draft", "off", "--json", "--no-remember"],
        env=environment,
        capture_output=True,
        check=True,
    )
    wanted = json.loads(ran.stdout)
    asked: Any = {"model": "starter", "seed": 11, "temperature": 0.9, "max_tokens": 60}
    asked |= {"messages": [{"role": "user", "content": "Name three rivers."}]}
    with openai.OpenAI(base_url=f"{starter.url}/v1", api_key="x", timeout=PATIENCE_S) as client:
        whole = client.chat.completions.create(**asked)
        stream = client.chat.completions.create(**asked, n=3, stream=True)
        texts = [""] * 3
        for piece in stream:
            texts[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert whole.choices[0].message.content == wanted["text"]
    assert texts[0] == wanted["text"]
    assert len(set(texts)) == 3
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == wanted["prompt_tokens"]
    assert whole.usage.completion_tokens == wanted["completion_tokens"]
