"""A Mixtral of random weights, 122 MB, with the bundled model's tokens: for speed and memory, not for answers.

`python tests/local_backend/random_model.py FILE` writes it in about a second; the same seed, the same file.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, INNER, HEADS, KV_HEADS, EXPERTS = 512, 8, 1088, 8, 2, 8
HEAD = WIDTH // HEADS
DEMO = Path(__file__).parents[2] / "local_backend" / "demo_model" / "tiny-mixtral-q8.gguf"


def write(path: Path, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer)
    vocabulary = _copy_tokens(writer)
    _add_q8(writer, rng, "token_embd.weight", (vocabulary, WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{block}ffn_gate_inp.weight", rng.standard_normal((EXPERTS, WIDTH), dtype=np.float32) * 0.05)
        shapes = {
            "attn_q": (WIDTH, WIDTH), "attn_k": (KV_HEADS * HEAD, WIDTH), "attn_v": (KV_HEADS * HEAD, WIDTH),
            "attn_output": (WIDTH, WIDTH), "ffn_gate_exps": (EXPERTS, INNER, WIDTH),
            "ffn_up_exps": (EXPERTS, INNER, WIDTH), "ffn_down_exps": (EXPERTS, WIDTH, INNER),
        }  # fmt: skip
        for name, shape in shapes.items():
            _add_q8(writer, rng, f"{block}{name}.weight", shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("Random Mixtral")
    writer.add_context_length(32768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _copy_tokens(writer: gguf.GGUFWriter) -> int:
    fields = gguf.GGUFReader(DEMO).fields

    def value(key: str):
        return fields[key].contents()

    tokens = [bytes(fields["tokenizer.ggml.tokens"].parts[at]) for at in fields["tokenizer.ggml.tokens"].data]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(value("tokenizer.ggml.scores"))
    writer.add_token_types(value("tokenizer.ggml.token_type"))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(value("tokenizer.chat_template"))
    return len(tokens)


def _add_q8(writer: gguf.GGUFWriter, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> None:
    """Random weights written directly in q8_0's blocks: a half-precision scale and 32 signed bytes."""
    blocks = int(np.prod(shape)) // 32
    data = np.empty((blocks, 34), np.uint8)
    data[:, :2] = np.frombuffer(np.float16(shape[-1] ** -0.5 / 64).tobytes(), np.uint8)
    data[:, 2:] = rng.integers(-127, 128, (blocks, 32), dtype=np.int8).view(np.uint8)
    rows = data.reshape(*shape[:-1], shape[-1] // 32 * 34)
    writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
