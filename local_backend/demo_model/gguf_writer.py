"""Write the trained demonstration model as a q8_0 GGUF: weights, tokenizer and chat template in one file."""

from pathlib import Path
from typing import Final

import gguf
import numpy as np
import numpy.typing as npt
import sentencepiece

from local_backend.demo_model.architecture import Shape, TinyMixtral
from local_backend.demo_model.tokens import BEGIN_ID, END_ID, UNKNOWN_ID

MODEL_NAME: Final = "Mixgate demonstration model (tiny Mixtral architecture)"
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] + '\n\n' %}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' + ns.system + message['content'] + ' [/INST]' }}"
    "{% set ns.system = '' %}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def write_gguf(path: Path, model: TinyMixtral, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    """Write the file. Nothing in it depends on the clock or the machine."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_architecture(writer, model.shape)
    _add_tokenizer(writer, tokenizer)
    for name, values in _tensors(model).items():
        # Vectors and the router stay exact: they are small, and rounding a router changes its choices.
        if values.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_architecture(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(MODEL_NAME)
    writer.add_license("Apache-2.0")
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.experts_used)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    size = tokenizer.vocab_size()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(number).encode() for number in range(size)])
    writer.add_token_scores([tokenizer.get_score(number) for number in range(size)])
    writer.add_token_types([_token_type(tokenizer, number) for number in range(size)])
    writer.add_bos_token_id(BEGIN_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_unk_token_id(UNKNOWN_ID)
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _token_type(tokenizer: sentencepiece.SentencePieceProcessor, number: int) -> gguf.TokenType:
    if tokenizer.is_unknown(number):
        return gguf.TokenType.UNKNOWN
    if tokenizer.is_control(number):
        return gguf.TokenType.CONTROL
    if tokenizer.is_byte(number):
        return gguf.TokenType.BYTE
    return gguf.TokenType.NORMAL


def _tensors(model: TinyMixtral) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors by their GGUF names. Parameters are named after them, under `layers.N.<part>.`."""
    named: dict[str, npt.NDArray[np.float32]] = {}
    for parameter, values in model.state_dict().items():
        words = parameter.split(".")
        name = parameter
        if words[0] == "layers":
            kept = [word for word in words[2:] if word not in ("attention", "experts", "weight")]
            name = f"blk.{words[1]}.{kept[0]}.weight"
        named[name] = np.ascontiguousarray(values.float().numpy())
    return named
