"""The flags of `serve`. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

Host = Annotated[
    str, flag("host", "text", "Address to listen on; 0.0.0.0 is for all who reach this machine.", default="127.0.0.1")
]
Port = Annotated[int, flag("port", "int", "Port to listen on; 0 takes a free one.", low=0, high=65535, default=8080)]
ApiKeyFile = Annotated[
    str | None,
    flag("api-key-file", "text", "Answer only who has the key in this file.", metavar="FILE", shows="none"),
]
AllowHost = Annotated[
    list[str],
    flag("allow-host", "list", "A name by which this machine may be asked, beside addresses; may be repeated."),
]
AllowOrigin = Annotated[
    list[str],
    flag("allow-origin", "list", "The origin of a web page that may ask, `http://…`; may be repeated."),
]
Keep = Annotated[
    str,
    flag("keep", "text", "How long an idle model stays open.", default="5m", metavar="TIME|always"),
]
Queue = Annotated[
    int,
    flag("queue", "int", "Texts of a model that may wait; more are told to come again.", low=0, high=4096, default=64),
]
NoServer = Annotated[
    bool,
    flag("no-server", "flag", "Load the model here, also where a server of yours has it open."),
]
Endpoint = Annotated[
    list[str],
    flag(
        "endpoint",
        "list",
        "Let this OpenAI-compatible server answer; may be repeated, and each gets its share.",
        metavar="URL",
    ),
]
EndpointModel = Annotated[
    str | None, flag("endpoint-model", "text", "What the endpoint calls the model.", shows="MODEL")
]
EndpointKeyEnv = Annotated[
    str | None,
    flag("endpoint-key-env", "text", "The environment variable that holds the endpoint's key.", metavar="NAME"),
]
EndpointTimeout = Annotated[
    str,
    flag(
        "endpoint-timeout",
        "text",
        "How long one try of a line may take; after two in vain it is a row with an error.",
        default="10m",
        metavar="TIME",
    ),
]
