"""The colours: dark, quiet, one blue for what is yours and one green for what moves."""

from textual.theme import Theme

CALM = Theme(
    name="calm",
    primary="#7cafd8",
    secondary="#5f87a8",
    accent="#7cafd8",
    foreground="#d4d9e0",
    background="#14171c",
    surface="#1b1f26",
    panel="#232932",
    success="#8fc08a",
    warning="#dcb26a",
    error="#e08080",
    dark=True,
    variables={
        "border": "#4a6a86",
        "border-blurred": "#333b47",
        "scrollbar": "#2c343f",
        "scrollbar-hover": "#3d4856",
        "scrollbar-active": "#4a6a86",
        "scrollbar-background": "#14171c",
        "scrollbar-background-hover": "#14171c",
        "scrollbar-background-active": "#14171c",
        "scrollbar-corner-color": "#14171c",
    },
)
