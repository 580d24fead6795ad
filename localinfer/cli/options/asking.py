"""The flags for what is asked: model, prompt, files, and how input is read. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Model = Annotated[
    str | None, flag("model", "text", "The model, when it is not the first argument.", short="-m", shows="starter")
]
Prompt = Annotated[str | None, flag("prompt", "text", "The prompt, when it is not an argument.", short="-p")]
File = Annotated[
    list[str], flag("file", "list", "Put this file before the prompt; may be repeated.", short="-f", metavar="FILE")
]
System = Annotated[str | None, flag("system", "text", "The system prompt.", short="-s")]
Raw = Annotated[bool, flag("raw", "flag", "Send the prompt as it is, without the model's chat template.")]
Special = Annotated[
    bool,
    flag(
        "special",
        "flag",
        "With --raw: text that spells a control token, such as `<|im_end|>`, is that token. Only for prompts that you "
        "trust: whoever writes them can write as the system or the model.",
    ),
]
IgnoreUnknown = Annotated[
    bool, flag("ignore-unknown", "flag", "Answer lines with keys that mean nothing here; else they are error rows.")
]
Lossy = Annotated[bool, flag("lossy", "flag", "Accept input that is not UTF-8; what cannot be read becomes U+FFFD.")]
Revision = Annotated[
    str | None, flag("revision", "text", "Commit, branch or tag of the repository.", metavar="REVISION")
]
