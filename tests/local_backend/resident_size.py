"""Run by test_memory in its own process: load a model as a worker does, compute, print the resident bytes."""

import re
import sys
from pathlib import Path

from local_backend import (
    llama,
    worker,  # noqa: F401 - what a worker imports is part of its size
)

SEQUENCES, BATCH_TOKENS = 4, 512


def main() -> None:
    path, mmap, repack, cells = sys.argv[1], sys.argv[2] == "1", sys.argv[3] == "1", int(sys.argv[4])
    llama.open_library()
    model = llama.Model(path, mmap=mmap, repack=repack)
    context = llama.Context(model, cells=cells, sequences=SEQUENCES, batch_tokens=BATCH_TOKENS, threads=1)
    batch = llama.Batch(BATCH_TOKENS, SEQUENCES)
    for start in range(0, 2 * BATCH_TOKENS, BATCH_TOKENS):
        batch.clear()
        batch.add(0, [10 + token % 900 for token in range(BATCH_TOKENS)], start, want_last=True)
        code = context.decode(batch)
        if code != 0:
            raise SystemExit(f"decode answered {code}")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    sys.stdout.write(f"{int(found[1]) * 1024}\n")


if __name__ == "__main__":
    main()
