"""Small GGUF files for tests: a draft of a one-layer Mixtral whose every part can be changed before it is written."""

import math
import struct
from pathlib import Path

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
F32_TYPE, Q8_0_TYPE = 0, 8
_LAYOUTS = {U8: "<B", U16: "<H", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}
ALIGNMENT = 32
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


class Draft:
    """A valid file until a test changes it. `values` are (type, value); an array's value is (element type, list)."""

    def __init__(self, *, width: int = 32, inner: int = 64, layers: int = 1, vocabulary: int = 16) -> None:
        self.version = 3
        self.values: dict[str, tuple[int, object]] = {
            "general.architecture": (STRING, "llama"),
            "general.name": (STRING, "Test"),
            "general.file_type": (U32, 7),
            "llama.context_length": (U32, 2048),
            "llama.embedding_length": (U32, width),
            "llama.block_count": (U32, layers),
            "llama.feed_forward_length": (U32, inner),
            "llama.attention.head_count": (U32, 4),
            "llama.attention.head_count_kv": (U32, 2),
            "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
            "llama.expert_count": (U32, 8),
            "llama.expert_used_count": (U32, 2),
            "tokenizer.ggml.model": (STRING, "llama"),
            "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{number}" for number in range(vocabulary)])),
            "tokenizer.ggml.scores": (ARRAY, (F32, [0.0] * vocabulary)),
            "tokenizer.chat_template": (STRING, TEMPLATE),
        }
        self.tensors: list[tuple[str, tuple[int, ...], int]] = [("token_embd.weight", (width, vocabulary), Q8_0_TYPE)]
        for layer in range(layers):
            shapes = {
                "attn_norm": (width,), "attn_q": (width, width), "attn_k": (width, width // 2),
                "attn_v": (width, width // 2), "attn_output": (width, width), "ffn_norm": (width,),
                "ffn_gate_inp": (width, 8), "ffn_gate_exps": (width, inner, 8), "ffn_up_exps": (width, inner, 8),
                "ffn_down_exps": (inner, width, 8),
            }  # fmt: skip
            for name, shape in shapes.items():
                kind = F32_TYPE if len(shape) == 1 or name == "ffn_gate_inp" else Q8_0_TYPE
                self.tensors.append((f"blk.{layer}.{name}.weight", shape, kind))
        self.tensors.append(("output_norm.weight", (width,), F32_TYPE))
        self.offsets: dict[str, int] = {}
        """Where a test wants a tensor instead of behind the one before."""
        self.tensor_count: int | None = None
        self.pair_count: int | None = None

    def rename(self, old: str, new: str) -> None:
        self.tensors = [(new if name == old else name, shape, kind) for name, shape, kind in self.tensors]

    def header(self) -> bytes:
        pairs = b"".join(_text(key) + _value(kind, value) for key, (kind, value) in self.values.items())
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        pair_count = len(self.values) if self.pair_count is None else self.pair_count
        infos, at = b"", 0
        for name, shape, kind in self.tensors:
            infos += _text(name) + struct.pack(f"<I{len(shape)}QI", len(shape), *shape, kind)
            infos += struct.pack("<Q", self.offsets.get(name, at))
            at = _aligned(at + _size(shape, kind))
        return b"GGUF" + struct.pack("<IQQ", self.version, tensor_count, pair_count) + pairs + infos

    def encode(self) -> bytes:
        header = self.header()
        data = b""
        for _, shape, kind in self.tensors:
            data = data.ljust(_aligned(len(data)), b"\0") + b"\0" * _size(shape, kind)
        return header.ljust(_aligned(len(header)), b"\0") + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.encode())
        return path


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


def _size(shape: tuple[int, ...], kind: int) -> int:
    count = math.prod(shape)
    if count > 1 << 32:
        return 0  # a header that lies: there is no such data
    return count * 4 if kind == F32_TYPE else count // 32 * 34


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value) -> bytes:
    return struct.pack("<I", kind) + _bare(kind, value)


def _bare(kind: int, value) -> bytes:
    if kind == STRING:
        return _text(value)
    if kind == ARRAY:
        element, items = value
        return struct.pack("<IQ", element, len(items)) + b"".join(_bare(element, item) for item in items)
    return struct.pack(_LAYOUTS[kind], value)
