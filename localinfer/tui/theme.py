"""The colours: quiet, one blue for what is yours and one green for what moves; on dark and on light.

The greys are grey enough to become greys where there are 256 colours only, and no blues.
"""

from textual.theme import Theme

CALM = Theme(
    name="calm",
    primary="#7cafd8",
    secondary="#5f87a8",
    accent="#7cafd8",
    foreground="#d4d9e0",
    background="#15171a",
    surface="#1d1f22",
    panel="#272a2e",
    success="#8fc08a",
    warning="#dcb26a",
    error="#e08080",
    dark=True,
    variables={
        "border": "#4a6a86",
        "border-blurred": "#3a3f46",
        "scrollbar": "#31353a",
        "scrollbar-hover": "#434950",
        "scrollbar-active": "#4a6a86",
        "scrollbar-background": "#15171a",
        "scrollbar-background-hover": "#15171a",
        "scrollbar-background-active": "#15171a",
        "scrollbar-corner-color": "#15171a",
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
