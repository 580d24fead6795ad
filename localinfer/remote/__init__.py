"""An engine in another process of the same user: found by its socket, asked over HTTP, the same events."""
