"""Which commands there are, and where they live. One line for each."""

COMMANDS = {
    "pull": "pull:pull",
    "list": "list_models:list_models",
    "show": "show:show",
    "rm": "rm:rm",
    "cache verify": "cache:verify",
    "cache prune": "cache:prune",
    "import": "import_:import_",
    "quantize": "quantize:quantize",
    "eval": "evaluate:evaluate",
    "export": "export:export",
    "run": "run:run",
    "map": "map_:map_",
    "score": "score:score",
    "embed": "embed:embed",
    "chat": "chat:chat",
    "serve": "serve:serve",
    "ps": "ps:ps",
    "stop": "ps:stop",
    "bench": "bench:bench",
    "fit": "fit:fit",
    "cost": "cost:cost",
    "draft train": "draft:train",
    "draft list": "draft:list_drafters",
    "draft rm": "draft:rm",
    "doctor": "doctor:doctor",
    "config show": "config:show",
    "config keys": "config:keys",
    "config set": "config:set_",
    "config unset": "config:unset",
    "completion": "completion:completion",
}
"""Where each command lives in this package, in the order of the help page: `module:function`."""

GROUPS = {
    "cache": "Check or tidy what is stored.",
    "draft": "Small models that guess for a large one, made on this machine.",
    "config": "Show, set or forget settings. Every flag has a key of the same name.",
}
"""First words of commands of two words, and what their help page says."""

ALIASES = {"ls": "list"}

PLAIN = {"doctor", "completion", "config show", "config keys", "config set", "config unset"}
"""Commands that must work when the settings file does not."""
