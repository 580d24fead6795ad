"""Models that call tools in the ways of several families, by script."""

from pathlib import Path

from tests.scripted import make_scripted

TEMPLATE = (
    "{%% if tools %%}{%% for tool in tools %%}%s {{ tool | tojson }}\n{%% endfor %%}{%% endif %%}"
    "{%% for message in messages %%}<|im_start|>{{ message['role'] }}\n"
    "{%% if message['tool_calls'] %%}{%% for call in message['tool_calls'] %%}"
    "call {{ call['function']['name'] }} {{ call['function']['arguments']['city'] }}"
    "{%% endfor %%}{%% endif %%}{%% if message['role'] == 'tool' %%}{{ message['name'] }} said {%% endif %%}"
    "{{ message['content'] or '' }}<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant"
    "{{ ' ' if messages[-1]['role'] == 'tool' else '\n' if tools else '\t' }}{%% endif %%}"
)
"""After tools the answer begins behind a line break, after their results behind a space, else behind a tab."""

ANSWER = ["It is ", "sunny in Paris."]
PLAIN = ["<think>", "\nThe user ", "greets me.", "\n</thi", "nk>\n\n", "Good ", "day."]

CALLS = {
    "hermes": [
        "Let me look.\n",
        "<tool_call>\n",
        '{"name": "weather", ',
        '"arguments": {"city": "Pa',
        'ris"}}\n',
        "</tool_call>",
    ],
    "mistral": ["[TOOL_CALLS]", '[{"name": "weather", "argu', 'ments": {"city": "Paris"}}]'],
    "llama3": ['{"name": "wea', 'ther", "parameters": {"city": "Paris"}}'],
    "lfm2": ["<|tool_call_start|>", '[weather(city="Pa', 'ris")]', "<|tool_call_end|>"],
    "functiongemma": [
        "<start_function_call>",
        "call:weather{city:",
        "<escape>",
        "Paris",
        "<escape>}",
        "<end_function_call>",
    ],
}
"""What is said where a tool may be called."""

MARKS = {"mistral": "[TOOL_CALLS]", "llama3": "<|python_tag|>", "hermes": "<tool_call>"}

BROKEN = ["Hm. ", "<tool_call>", '{"name": "weather", "arguments": {"town": "Paris"}}', "</tool_call>", " So be it."]
"""A call that does not keep the tool's schema."""


def make_caller(path: Path, way: str, calls: list[str] | None = None) -> Path:
    """A model that calls `weather` in this way, where there are tools."""
    pieces = list(calls or CALLS[way])
    specials = [piece for piece in pieces if piece.startswith("<") and piece.endswith(">") and way not in MARKS]
    specials += [piece for piece in pieces if piece == "[TOOL_CALLS]"]
    scripts = {"\n": pieces, " ": ANSWER, "\t": PLAIN}
    template = TEMPLATE % MARKS.get(way, "")
    return make_scripted(path, scripts, template + "{# </think> #}", specials)


THOUGHT = ["<think>", "The ", "user ", "greets ", "me.", "</think>", "\n\n", "Good ", "day."]
"""What a thinker says where it may think; its marks are tokens of their own."""


def make_thinker(path: Path) -> Path:
    """A model that thinks, unless `enable_thinking` is false."""
    template = (
        TEMPLATE.replace("%%", "%").partition("{% if add_generation_prompt")[0].partition("{% endif %}{% endif %}")[2]
    )
    switch = "{{ ' ' if enable_thinking is defined and not enable_thinking else '\t' }}"
    ending = f"{{% if add_generation_prompt %}}<|im_start|>assistant{switch}{{% endif %}}{{# </think> #}}"
    return make_scripted(path, {" ": ANSWER, "\t": THOUGHT}, template + ending, ["<think>", "</think>"])
