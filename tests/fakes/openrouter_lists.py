"""A server that publishes lists of models as OpenRouter does, on a socket of its own, with faults where asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


def listed(model: str, **members: Any) -> dict[str, Any]:
    """A model as `GET /models` has it."""
    return {
        "id": model,
        "canonical_slug": model,
        "context_length": 65536,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.000002", "completion": "0.000006", "request": "0", "input_cache_read": "0.0000002"},
        "top_provider": {"context_length": 65536, "max_completion_tokens": 16384, "is_moderated": False},
        "supported_parameters": ["temperature", "tools", "response_format", "structured_outputs", "seed"],
        "expiration_date": None,
        **members,
    }


def page(*models: dict[str, Any], following: str | None = None) -> Answer:
    """An answer to `GET /models`."""
    return 200, {}, json.dumps({"data": models, "links": {"next": following}}).encode()


def endpoints(*listed_ones: tuple[int, str]) -> Answer:
    """An answer to `GET /models/{id}/endpoints`: context and prompt price of each."""
    entries = [{"context_length": context, "pricing": {"prompt": price}} for context, price in listed_ones]
    return 200, {}, json.dumps({"data": {"endpoints": entries}}).encode()


class Lists:
    """Answers by path; a list of answers is used up in order, its last for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer] | Callable[[], Answer]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def answer(self, path: str) -> Answer:
        planned = self.answers.get(path, [(404, {}, b'{"error": {"message": "no"}}')])
        if callable(planned):
            return planned()
        return planned.pop(0) if len(planned) > 1 else planned[0]


@contextmanager
def model_lists() -> Iterator[Lists]:
    """Serve while the block runs."""
    lists = Lists()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lists.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            status, headers, body = lists.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    lists.url = f"http://127.0.0.1:{server.server_port}/api/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield lists
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
