"""The flags for what is printed, and whether a person is asked. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Json = Annotated[bool, flag("json", "flag", "Print JSON on standard output.")]
Quiet = Annotated[bool, flag("quiet", "flag", "No progress and no notes on standard error.", short="-q")]
Stats = Annotated[bool, flag("stats", "flag", "Print speeds and counts on standard error at the end.")]
Yes = Annotated[bool, flag("yes", "flag", "Do not ask.", short="-y")]
Recalibrate = Annotated[
    bool,
    flag("recalibrate", "flag", "Forget the step times of all models; each is measured anew when it is next loaded."),
]
DryRun = Annotated[bool, flag("dry-run", "flag", "Only say what would happen.")]
Template = Annotated[bool, flag("template", "flag", "Print the model's chat template and nothing else.")]
