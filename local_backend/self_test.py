"""One token of one model, then exit 0: `python -m local_backend.self_test FILE`.

Run by `preflight`, in its own process. Decoding is what a library built for another processor dies of; loading
alone does not show it.
"""

import os
import sys

BATCH_TOKENS = 8


def main() -> None:
    """Load, decode a few tokens, leave. Says on stderr what did not work, and exits 1."""
    # A crash must be quick and quiet: no debugger for a backtrace.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # Imported here: this file must be importable without the extra.
    from local_backend import llama  # noqa: PLC0415

    try:
        llama.open_library()
        model = llama.Model(sys.argv[1], mmap=True, repack=True)
        context = llama.Context(model, cells=256, sequences=1, batch_tokens=BATCH_TOKENS, threads=1)
        batch = llama.Batch(BATCH_TOKENS, 1)
        batch.add(0, list(range(1, BATCH_TOKENS + 1)), 0, want_last=True)
        code = context.decode(batch)
    except (llama.BindingError, llama.LoadError) as error:
        raise SystemExit(str(error)) from error
    if code != 0:
        raise SystemExit(f"llama.cpp answered {code} to a decode")


if __name__ == "__main__":
    main()
