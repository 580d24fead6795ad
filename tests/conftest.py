"""Fixtures every test may use: an isolated home, golden files, the tiny models."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.nodeid import coerce_node_id


def pytest_configure() -> None:
    """A shell without job control starts what runs behind it with Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from what is seen now")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a group stay on one worker. pytest-xdist 3.8 says so in a field that pytest 9.2 does not read."""
    if getattr(config.option, "loadgroup", False):
        for item in items:
            mark = item.get_closest_marker("xdist_group")
            if mark is not None and "@" not in item.nodeid.rpartition("]")[2]:
                item._id = coerce_node_id(f"{item.nodeid}@{mark.args[0]}")


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test sees or changes the developer's own models, chats, caches or settings."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HF_TOKEN", "HF_ENDPOINT", "LOCALINFER_ISA", "LOCALINFER_DEBUG", "NO_COLOR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOCALINFER_HOME", str(home / "localinfer"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    return home


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The starter's own GGUF file, found and hashed as the program does it; `make test` installs its package."""
    from localinfer.hub import catalogue
    from localinfer.hub.starter import package_file

    entry = catalogue.find("starter")
    assert entry is not None
    assert entry.package is not None
    return package_file(entry.package)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("name.txt", seen)`: compare with `golden/name.txt` beside the test; `--update-golden` rewrites it."""
    folder = Path(request.path).parent / "golden"

    def check(name: str, seen: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(seen, encoding="utf-8")
            return
        assert path.exists(), f"no golden file {path.name}: run pytest --update-golden and read the diff"
        assert seen == path.read_text(encoding="utf-8")

    return check
