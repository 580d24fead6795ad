"""The flags for the form of an answer. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Schema = Annotated[
    str | None,
    flag("schema", "text", "Answer with JSON that keeps this JSON schema, given or in a file.", metavar="FILE|JSON"),
]
JsonObject = Annotated[bool, flag("json-object", "flag", "Answer with a JSON object.")]
InColumn = Annotated[
    str | None,
    flag(
        "in-column",
        "text",
        "FILE is a table (`.csv`, `.tsv`, `.parquet`): answer the texts of this column. `id` is the column of this "
        "name, or the number of the row.",
        metavar="NAME",
    ),
]
Rules = Annotated[
    str | None,
    flag(
        "grammar",
        "text",
        "Answer with text of this grammar, given or in a file: Lark's way of writing (`start: …`) or GBNF (`root ::= "
        "…`).",
        metavar="FILE|GRAMMAR",
    ),
]
Regex = Annotated[
    str | None, flag("regex", "text", "Answer with text that matches this regular expression, all of it.")
]
Adapter = Annotated[
    list[str],
    flag(
        "adapter",
        "list",
        "Add this LoRA adapter (PEFT's form) to the weights, WEIGHT times; may be repeated. The merged model is made "
        "once and kept until `cache prune`.",
        metavar="DIR[=WEIGHT]",
    ),
]
