"""For all tests: what must be imported before any thread starts."""

import anyio

# anyio reads its own source at the first look at each of its names. Two threads doing so at once trip over a fault of
# CPython 3.11 ("AST constructor recursion depth mismatch"), and clients in threads are what many tests here are.
for _name in dir(anyio):
    getattr(anyio, _name)
