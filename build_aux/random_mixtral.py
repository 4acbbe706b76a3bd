"""Make a random Mixtral-architecture GGUF for tests and benchmarks: `python build_aux/random_mixtral.py q8_0`.

It answers nonsense, but it has the shape, the memory and the speed of a model of its size. Files are kept outside
the tree (`$XDG_CACHE_HOME/mixgate/models`), are made once, and are the same for the same arguments. Needs `numpy`
and `gguf`; the K quantisations are made by llama.cpp itself, so they also need llama-cpp-python. Prints the file's
path.
"""

import argparse
import hashlib
import os
import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import numpy.typing as npt

RECIPE_VERSION: Final = 2
"""Part of the file's name: raise it when the file's content changes."""
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
CONTROL: Final = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model. The default is 114 million parameters: 121 MB as q8_0."""

    width: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    inner: int = 768
    experts: int = 8
    vocabulary: int = 32_000
    context_tokens: int = 32_768


def make(quantisation: str, shape: Shape = Shape(), *, folder: Path | None = None) -> Path:
    """Make the file unless it is there already.

    Args:
        quantisation: "f16", "q8_0", or "q4_k_m" and other names of llama.cpp's `llama_ftype`.
        shape: Sizes; K quantisations need `width` and `inner` divisible by 256.
        folder: Where to; default the user's cache.
    """
    folder = folder or _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(repr((RECIPE_VERSION, astuple(shape))).encode()).hexdigest()[:8]
    path = folder / f"random-mixtral-{digest}-{quantisation}.gguf"
    if path.exists():
        return path
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        if quantisation in ("f16", "q8_0"):
            _write(part, shape, quantisation)
        else:
            _quantise(make("f16", shape, folder=folder), part, quantisation)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixgate" / "models"


def _write(path: Path, shape: Shape, quantisation: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Random Mixtral (nonsense, for tests)")
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(2)
    writer.add_vocab_size(shape.vocabulary)
    q8 = quantisation == "q8_0"
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, shape.vocabulary)
    rng = np.random.default_rng(0)
    for name, dimensions in _tensors(shape).items():
        _add_tensor(writer, name, _values(rng, dimensions), q8=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: Matrix, *, q8: bool) -> None:
    if values.ndim == 1 or "ffn_gate_inp" in name:
        writer.add_tensor(name, values)
    elif q8:
        packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else:
        writer.add_tensor(name, values.astype(np.float16))


def _values(rng: np.random.Generator, dimensions: tuple[int, ...]) -> Matrix:
    if len(dimensions) == 1:
        return np.ones(dimensions, np.float32)
    return rng.standard_normal(dimensions, dtype=np.float32) * np.float32(dimensions[-1] ** -0.5)


def _tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    width, inner, experts = shape.width, shape.inner, shape.experts
    kv_width = width // shape.heads * shape.kv_heads
    layer = {
        "attn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (kv_width, width),
        "attn_v": (kv_width, width),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_gate_inp": (experts, width),
        "ffn_gate_exps": (experts, inner, width),
        "ffn_up_exps": (experts, inner, width),
        "ffn_down_exps": (experts, width, inner),
    }
    tensors = {"token_embd.weight": (shape.vocabulary, width)}
    for number in range(shape.layers):
        tensors |= {f"blk.{number}.{name}.weight": dimensions for name, dimensions in layer.items()}
    return tensors | {"output_norm.weight": (width,), "output.weight": (shape.vocabulary, width)}


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    """Control tokens, all bytes, and made-up words with a space in front: any text can be tokenised."""
    letters = "etaoinshrdlucmfwygpbvkxqjz"
    pieces = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *letters]
    single = len(pieces)
    words = (f"{a}{b}{c}{d}" for a in ("\u2581", *letters) for b in letters for c in letters for d in letters)
    pieces += [word for word, _ in zip(words, range(vocabulary - single), strict=False)]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * (len(CONTROL) - 1), *[gguf.TokenType.BYTE] * 256]
    kinds += [gguf.TokenType.NORMAL] * (vocabulary - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_scores([-float(number) for number in range(vocabulary)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(value=True)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(TEMPLATE)


def _quantise(source: Path, target: Path, quantisation: str) -> None:
    import llama_cpp  # noqa: PLC0415 - only the K quantisations need it

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quantisation.upper()}")
    params.nthread = 1
    result = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if result != 0:
        raise SystemExit(f"llama.cpp could not quantise {source} to {quantisation} (code {result})")


def main() -> None:
    """Parse arguments, make the file, print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantisation", help="f16, q8_0, q4_k_m, ...")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--inner", type=int, default=768)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    shape = Shape(width=arguments.width, layers=arguments.layers, inner=arguments.inner)
    sys.stdout.write(f"{make(arguments.quantisation, shape, folder=arguments.folder)}\n")


if __name__ == "__main__":
    main()
