"""Where things are kept: the only reader of HOME, XDG and LOCALINFER_HOME."""

import hashlib
import os
import warnings
from pathlib import Path

import platformdirs


def home() -> Path:
    """The folder that holds all we keep; `LOCALINFER_HOME` moves it."""
    override = os.environ.get("LOCALINFER_HOME")
    return Path(override).expanduser() if override else Path(platformdirs.user_data_dir("localinfer"))


def models_dir() -> Path:
    """Models of ours: `<models>/<name with "/" as "--">/<variant>/`, variant `BF16`, `INT4` and the like."""
    return home() / "models"


def chats_file() -> Path:
    """The SQLite file with all chats."""
    return home() / "chats.sqlite3"


def screen_file() -> Path:
    """How the chat app was left: panes, theme, and prompts that were not sent."""
    return home() / "screen.json"


def machine_file() -> Path:
    """What was measured on this machine (bandwidth, threads)."""
    return home() / "machine.json"


def step_timing_file() -> Path:
    """What a step of each model costs on this machine, measured."""
    return home() / "step-timing.json"


def bench_file() -> Path:
    """Every benchmark that was run here, a line of JSON each."""
    return home() / "bench.jsonl"


def prices_file() -> Path:
    """Today's prices of providers, for the models that were asked for."""
    return home() / "prices.json"


def machines_file() -> Path:
    """Machines of the user's own, for `cost`: TOML like `cost/machines.toml`."""
    return config_file().with_name("machines.toml")


def drafters_dir() -> Path:
    """Drafters that were trained here, a folder each."""
    return home() / "drafters"


def texts_dir() -> Path:
    """Earlier texts as tokens, for guessing: a private file a tokenizer."""
    return home() / "texts"


def tokenizers_dir() -> Path:
    """Tokenizers as they were read and checked, a file each; they can be made again."""
    return home() / "tokenizers"


def cuda_dir() -> Path:
    """Kernels compiled for this machine's cards, and which cards have passed their test."""
    return home() / "cuda"


def kv_dir() -> Path:
    """Keys and values of earlier chats, private: `<model>/<two letters>/<name>`."""
    return home() / "kv"


def experts_dir() -> Path:
    """Experts of models that do not fit into memory, packed; a file each, which can be made again."""
    return home() / "experts"


def runtime_dir() -> Path:
    """Sockets of servers that run. A home of its own has servers of its own; paths of sockets must be short."""
    with warnings.catch_warnings(action="ignore"):  # where the system has none, a folder of the user's in /tmp will do
        folder = Path(platformdirs.user_runtime_dir("localinfer"))
    if os.environ.get("LOCALINFER_HOME"):
        name = hashlib.sha256(os.fsencode(home().absolute())).hexdigest()[:12]
        folder = folder.with_name(f"{folder.name}-{name}")
    return folder


def merged_dir() -> Path:
    """Models with adapters merged in, a folder each; they can be made again."""
    return home() / "merged"


def config_file() -> Path:
    """The user's settings, TOML. `LOCALINFER_CONFIG` names another file."""
    override = os.environ.get("LOCALINFER_CONFIG")
    if override:
        return Path(override).expanduser()
    if os.environ.get("LOCALINFER_HOME"):
        return home() / "config.toml"
    return Path(platformdirs.user_config_dir("localinfer")) / "config.toml"


def hub_cache_dir() -> Path:
    """The standard Hugging Face cache, shared with every other tool that reads it; it holds all downloads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return Path(os.path.expandvars(value)).expanduser()
    if value := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(value)).expanduser() / "hub"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "huggingface" / "hub"
