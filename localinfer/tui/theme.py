"""The colours: quiet, one blue for what is yours and one green for what moves; on dark and on light."""

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

CALM_LIGHT = Theme(
    name="calm-light",
    primary="#2f6690",
    secondary="#55788f",
    accent="#2f6690",
    foreground="#22272e",
    background="#fbfbf9",
    surface="#f1f1ee",
    panel="#e6e6e2",
    success="#3f7d3a",
    warning="#9a6a14",
    error="#b03a3a",
    dark=False,
    variables={
        "border": "#7fa3bd",
        "border-blurred": "#cfd3d6",
        "scrollbar": "#d5d8da",
        "scrollbar-hover": "#b9bfc4",
        "scrollbar-active": "#7fa3bd",
        "scrollbar-background": "#fbfbf9",
        "scrollbar-background-hover": "#fbfbf9",
        "scrollbar-background-active": "#fbfbf9",
        "scrollbar-corner-color": "#fbfbf9",
    },
)

THEMES = (CALM, CALM_LIGHT)
"""Ours, the default first; Textual brings more."""
