"""From a model's name to an engine: found, fetched or made, checked that it fits, opened with its advised sampling."""
