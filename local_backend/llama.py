"""A thin, typed layer over llama.cpp's C API. The only importer of llama_cpp, and only inside the worker process.

The binding follows llama.cpp without a promise of stability, so its version is pinned and `open_library` proves at
start that the parts used here still are what they were. llama_cpp's own package initialiser is skipped: it pulls in a
high-level API that is not used here (its chat formats, numpy, a disk cache: 0.2 s of start-up).
"""

import ctypes
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

OLDEST_VERSION: Final = (0, 3, 36)
NEWEST_VERSION_EXCLUSIVE: Final = (0, 4, 0)

ATTRIBUTE_CONTROL: Final = 8
ATTRIBUTE_USER_DEFINED: Final = 16

ABORTED: Final = 2
"""What `Context.decode` answers when the abort callback stopped it."""

_PIECE_BYTES = 256
_LOG_LINES = 40
_LEVEL_WARNING = 2
_LEVEL_ERROR = 3
_LEVEL_CONTINUED = 5


class BindingError(RuntimeError):
    """The installed llama-cpp-python is not one this code can use."""


class LoadError(RuntimeError):
    """llama.cpp would not load a file; the message is its own."""


lib: Any = None
"""llama_cpp's ctypes module, once `open_library` was called."""

_log: deque[str] = deque(maxlen=_LOG_LINES)
_kept_alive: list[Any] = []


def open_library() -> str:
    """Load the binding, check it, silence its chatter. Returns its version.

    Raises:
        BindingError: Not installed, not a supported version, or changed under our feet.
    """
    global lib  # noqa: PLW0603  # one library per process, loaded once
    if lib is not None:
        return importlib.metadata.version("llama-cpp-python")
    version = _checked_version()
    lib = _import_low_level()
    _check_binding()
    callback = lib.llama_log_callback(_keep_log_line)
    _kept_alive.append(callback)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return version


def _checked_version() -> str:
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        raise BindingError(
            "llama-cpp-python is not installed; run `make run`, or pip install 'mixgate[local]'"
        ) from None
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not OLDEST_VERSION <= numbers < NEWEST_VERSION_EXCLUSIVE:
        raise BindingError(f"llama-cpp-python {version} is installed, but this release needs >=0.3.36,<0.4")
    return version


def _import_low_level() -> Any:
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.submodule_search_locations is None:
        raise BindingError("llama-cpp-python is installed, but its package llama_cpp cannot be found; reinstall it")
    package = types.ModuleType("llama_cpp")
    package.__path__ = list(found.submodule_search_locations)
    package.__spec__ = importlib.machinery.ModuleSpec("llama_cpp", None, is_package=True)
    sys.modules["llama_cpp"] = package
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError, FileNotFoundError) as error:
        raise BindingError(f"llama.cpp's library cannot be loaded: {error}") from error


def _check_binding() -> None:
    """Defaults that llama.cpp has had for years sit where our fields say they are, or the structs have moved."""
    try:
        context = lib.llama_context_default_params()
        model = lib.llama_model_default_params()
        good = (
            context.n_ctx == 512
            and context.n_batch == 2048
            and context.n_seq_max == 1
            and context.kv_unified is False
            and context.offload_kqv is True
            and model.vocab_only is False
            and model.use_extra_bufts is True
            and lib.LLAMA_TOKEN_ATTR_CONTROL == ATTRIBUTE_CONTROL
            and lib.LLAMA_TOKEN_ATTR_USER_DEFINED == ATTRIBUTE_USER_DEFINED
            and lib.LLAMA_LOAD_MODE_MMAP == 1
        )
    except AttributeError as error:
        raise BindingError(f"llama-cpp-python misses something this release uses: {error}") from error
    if not good:
        raise BindingError("llama-cpp-python's structures are not those this release knows; install 0.3.36")


def _keep_log_line(level: int, text: bytes | None, _data: object) -> None:
    if text is None:
        return
    line = text.decode("utf-8", "replace").rstrip("\n")
    if level in {_LEVEL_WARNING, _LEVEL_ERROR} and line:
        _log.append(line)


def last_log_lines(count: int = 3) -> str:
    """The last warnings and errors of llama.cpp, for a message."""
    return "; ".join(list(_log)[-count:])


class Vocabulary:
    """A model's tokens."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.size: int = lib.llama_vocab_n_tokens(pointer)
        self.bos: int = lib.llama_vocab_bos(pointer)
        self.eos: int = lib.llama_vocab_eos(pointer)
        self.adds_bos: bool = bool(lib.llama_vocab_get_add_bos(pointer))
        self.ends: frozenset[int] = frozenset(
            token for token in range(self.size) if lib.llama_vocab_is_eog(pointer, token)
        )
        self.control: Mapping[str, int] = self._spelled(ATTRIBUTE_CONTROL)
        """Tokens that steer the model (`</s>`), by their text."""
        self.special: Mapping[str, int] = self._spelled(ATTRIBUTE_CONTROL | ATTRIBUTE_USER_DEFINED)
        """Those, and the words a model was given a token of its own for."""
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)

    def _spelled(self, wanted: int) -> dict[str, int]:
        special: dict[str, int] = {}
        for token in range(self.size):
            if lib.llama_vocab_get_attr(self.pointer, token) & wanted or token in self.ends:
                text = (lib.llama_vocab_get_text(self.pointer, token) or b"").decode("utf-8", "replace")
                if text:
                    special.setdefault(text, token)
        return special

    def text(self, token: int) -> str:
        """A token as the file spells it (`<s>`); empty for none."""
        if not 0 <= token < self.size:
            return ""
        return str((lib.llama_vocab_get_text(self.pointer, token) or b"").decode("utf-8", "replace"))

    def tokenize(self, text: str) -> list[int]:
        """Plain text's tokens. Control tokens spelled out in it stay text."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        tokens = (ctypes.c_int32 * room)()
        count = lib.llama_tokenize(self.pointer, data, len(data), tokens, room, False, False)  # noqa: FBT003  # C API
        if count < 0:
            room = -count
            tokens = (ctypes.c_int32 * room)()
            count = lib.llama_tokenize(self.pointer, data, len(data), tokens, room, False, False)  # noqa: FBT003  # C API
        return tokens[: max(count, 0)]

    def piece(self, token: int) -> bytes:
        """A token's bytes; none for a control token."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token)
        return known

    def _render(self, token: int) -> bytes:
        buffer = self._buffer
        count: int = lib.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, False)  # noqa: FBT003  # C API
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = lib.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, False)  # noqa: FBT003  # C API
        return buffer.raw[: max(count, 0)]


class Model:
    """A loaded GGUF.

    Args:
        path: The file; for a split model its first shard.
        mmap: Map the file instead of reading it into memory.
        repack: Let llama.cpp keep a second, rearranged copy of some weights: faster, more memory when mapped.

    Raises:
        LoadError: llama.cpp refused.
    """

    def __init__(self, path: str, *, mmap: bool = False, repack: bool = True) -> None:
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mmap else lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = repack
        params.n_gpu_layers = 0
        _log.clear()
        self.pointer = lib.llama_model_load_from_file(path.encode(), params)
        if not self.pointer:
            raise LoadError(last_log_lines() or "llama.cpp gave no reason")
        self.vocabulary = Vocabulary(lib.llama_model_get_vocab(self.pointer))

    def close(self) -> None:
        """Give the memory back. No context may use the model any more."""
        if self.pointer:
            lib.llama_model_free(self.pointer)
            self.pointer = None


class Context:
    """KV memory and compute buffers for several sequences of one model. Not thread-safe: one thread at a time.

    Args:
        model: Whose weights.
        cells: KV cells shared by all sequences, in tokens.
        sequences: How many sequences there may be.
        batch_tokens: The most tokens in one `decode`.
        threads: CPU threads, at first.
    """

    def __init__(self, model: Model, *, cells: int, sequences: int, batch_tokens: int, threads: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self._threads = threads
        params.kv_unified = True
        params.no_perf = True
        self.pointer = lib.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise LoadError(last_log_lines() or "not enough memory for the context")
        self.vocabulary_size = model.vocabulary.size
        self._memory = lib.llama_get_memory(self.pointer)
        self._abort: Any = None

    def set_abort(self, wanted: Callable[[], bool]) -> None:
        """Ask `wanted` between the operations of a decode; True ends it with ABORTED."""
        self._abort = lib.ggml_abort_callback(_ignoring_data(wanted))
        lib.llama_set_abort_callback(self.pointer, self._abort, None)

    def use_threads(self, threads: int) -> None:
        """Compute with so many from now on."""
        if threads != self._threads:
            self._threads = threads
            lib.llama_set_n_threads(self.pointer, threads, threads)

    def decode(self, batch: "Batch") -> int:
        """Compute a batch. 0 is good, 1 means no KV room, ABORTED aborted, below 0 a failure."""
        return int(lib.llama_decode(self.pointer, batch.struct))

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's cells from position `start` on."""
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def share(self, source: int, target: int, end: int) -> None:
        """Let `target` use the cells of `source` before position `end`. Nothing is copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def clear(self) -> None:
        """Forget everything."""
        lib.llama_memory_clear(self._memory, True)  # noqa: FBT003  # C API

    def logits(self, row: int) -> Any:
        """A pointer to the logits of one row of the last batch, `vocabulary_size` floats."""
        return lib.llama_get_logits_ith(self.pointer, row)

    def close(self) -> None:
        """Give the memory back."""
        if self.pointer:
            lib.llama_free(self.pointer)
            self.pointer = None


def _ignoring_data(wanted: Callable[[], bool]) -> Callable[[object], bool]:
    def asked(_data: object) -> bool:
        return wanted()

    return asked


class Batch:
    """The input of one decode, in arrays that are reused."""

    def __init__(self, tokens_max: int, sequences: int) -> None:
        self.tokens_max = tokens_max
        self.count = 0
        self._token = (ctypes.c_int32 * tokens_max)()
        self._pos = (ctypes.c_int32 * tokens_max)()
        self._n_seq_id = (ctypes.c_int32 * tokens_max)(*([1] * tokens_max))
        self._wanted = (ctypes.c_int8 * tokens_max)()
        self._ids = [ctypes.pointer(ctypes.c_int32(sequence)) for sequence in range(sequences)]
        self._seq_id = (ctypes.POINTER(ctypes.c_int32) * tokens_max)()
        self.struct = lib.llama_batch()
        self.struct.token = ctypes.cast(self._token, ctypes.POINTER(ctypes.c_int32))
        self.struct.embd = None
        self.struct.pos = ctypes.cast(self._pos, ctypes.POINTER(ctypes.c_int32))
        self.struct.n_seq_id = ctypes.cast(self._n_seq_id, ctypes.POINTER(ctypes.c_int32))
        self.struct.seq_id = ctypes.cast(self._seq_id, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self.struct.logits = ctypes.cast(self._wanted, ctypes.POINTER(ctypes.c_int8))

    def clear(self) -> None:
        """Start over."""
        self.count = 0
        self.struct.n_tokens = 0

    def add(self, sequence: int, tokens: Sequence[int], start: int, *, want_last: bool) -> int:
        """Append tokens of a sequence from position `start` on. Returns the row of the last one."""
        first, end = self.count, self.count + len(tokens)
        self._token[first:end] = list(tokens)
        self._pos[first:end] = list(range(start, start + len(tokens)))
        self._wanted[first:end] = [0] * len(tokens)
        pointer = self._ids[sequence]
        for row in range(first, end):
            self._seq_id[row] = pointer
        if want_last:
            self._wanted[end - 1] = 1
        self.count = self.struct.n_tokens = end
        return end - 1
