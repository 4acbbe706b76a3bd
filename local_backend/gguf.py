"""What a model file is, and whether it may reach native code: `inspect(path)` gives `GgufFacts` or says what is wrong.

llama.cpp aborts the process on some bad files and gives no reason for the others, so everything that it would
stumble over is looked for here first, from the header alone: a few milliseconds, whatever the size of the file.
Weights are not looked at; that they are the published ones is the checksum's business (`pull`).
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_backend.file_errors import BadFileError
from local_backend.ggml_types import FILE_TYPES, REPACKED_TYPES
from local_backend.gguf_reader import GET_IT_AGAIN, Header, HeaderNotThereError, Scalar, TensorInfo, read_header

ARCHITECTURE: Final = "llama"
"""What llama.cpp calls the family that Mixtral belongs to."""
SHARDS_MAX: Final = 256
LAYERS_MAX: Final = 1024
CONTEXT_TOKENS_MAX: Final = 1 << 24
TEMPLATE_MAX_CHARS: Final = 64 << 10
WORKING_REPOSITORIES: Final = "mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF or bartowski/Mixtral-8x22B-v0.1-GGUF"
_SHARD_NAME: Final = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf$")
_SPLIT_EXPERT: Final = re.compile(r"^blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight$")


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """A model file that llama.cpp can load, in numbers."""

    path: Path
    """The file to load: of several parts, the first."""
    shards: tuple[Path, ...]
    size_bytes: int
    """On disk, all parts together."""
    name: str
    architecture: str
    quantisation: str
    """Such as "Q4_K_M"."""
    chat_template: str
    context_length: int
    """In tokens: what the model was made for."""
    embedding_length: int
    feed_forward_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    expert_count: int
    expert_used_count: int
    vocab_size: int
    tensor_count: int
    parameters: int
    active_parameters: int
    """Parameters that one token passes through."""
    weights_bytes: int
    """All tensors together."""
    active_weights_bytes: int
    """Tensor bytes read for one token: what bounds tokens per second."""
    repacked_bytes: int
    """Tensor bytes of which llama.cpp keeps a rearranged second copy when the file is mapped."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Attention memory of one token, in 16-bit floats."""
        return 2 * self.block_count * self.head_count_kv * (self.key_length + self.value_length)


def inspect(path: Path) -> GgufFacts:
    """Read the header of a model file, of all its parts if it has several, and check all that native code relies on.

    Raises:
        BadFileError: With the cause named and what to do.
    """
    shards = _shards(path)
    headers = [read_header(shard) for shard in shards]
    tensors = _gather(headers)
    checker = _Checker(headers[0], tensors)
    return checker.facts(shards, sum(header.size_bytes for header in headers))


def judge_beginning(path: Path, *, full_size_bytes: int) -> None:
    """Look at a file that is still arriving, and refuse what can be refused already.

    Raises:
        BadFileError: Nothing that is still to come can make it load.
    """
    try:
        header = read_header(path, full_size_bytes=full_size_bytes)
    except HeaderNotThereError:
        return
    checker = _Checker(header, {tensor.name: tensor for tensor in header.tensors})
    checker.check_kind()


def _shards(path: Path) -> tuple[Path, ...]:
    named = _SHARD_NAME.match(path.name)
    if named is None:
        return (path,)
    count = int(named["count"])
    if not 1 <= count <= SHARDS_MAX:
        raise BadFileError(f"{path.name} says it is one of {count} parts; 1 to {SHARDS_MAX} make sense")
    parts = tuple(path.with_name(f"{named['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1))
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise BadFileError(
            f"{path.name} is one of {count} parts, and {len(missing)} of them are missing ({missing[0]}, ...): "
            "put all parts into one folder, or get them with `mixgate pull`"
        )
    return parts


def _gather(headers: list[Header]) -> dict[str, TensorInfo]:
    """All tensors of all parts, by name; checks that the parts belong together and are all there."""
    first = headers[0]
    declared = first.values.get("split.count", 1)
    if declared not in (0, len(headers)):
        raise BadFileError(
            f"{first.path.name} is one of {declared} parts by its content, but its name does not say so: "
            "give the parts their published names (...-00001-of-000NN.gguf)"
        )
    tensors: dict[str, TensorInfo] = {}
    for number, header in enumerate(headers):
        if len(headers) > 1 and header.values.get("split.no") != number:
            raise BadFileError(f"{header.path.name} is not part {number + 1} by its content; {GET_IT_AGAIN}")
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise BadFileError(f"{header.path.name}: {tensor.name!r} is also in another part; {GET_IT_AGAIN}")
            tensors[tensor.name] = tensor
    total = first.values.get("split.tensors.count", len(tensors))
    if len(headers) > 1 and total != len(tensors):
        raise BadFileError(f"{first.path.name}: its parts hold {len(tensors)} of {total} tensors; {GET_IT_AGAIN}")
    return tensors


class _Checker:
    """Asks one file's header everything that llama.cpp will take for granted."""

    def __init__(self, header: Header, tensors: dict[str, TensorInfo]) -> None:
        self._header = header
        self._values = header.values
        self._tensors = tensors

    def facts(self, shards: tuple[Path, ...], size_bytes: int) -> GgufFacts:
        experts, used, template = self.check_kind()
        embedding = self._number("embedding_length", 1 << 20)
        heads = self._number("attention.head_count", 1 << 16)
        kv_heads = self._number("attention.head_count_kv", 1 << 16)
        if heads % kv_heads or ("llama.attention.key_length" not in self._values and embedding % heads):
            raise self._bad(f"{heads} heads do not divide over {kv_heads} key heads and {embedding} channels")
        key_length = self._number("attention.key_length", 1 << 16, embedding // heads)
        value_length = self._number("attention.value_length", 1 << 16, embedding // heads)
        self._check_epsilon()
        sizes = _Sizes(
            width=embedding,
            inner=self._number("feed_forward_length", 1 << 24),
            q=heads * key_length,
            k=kv_heads * key_length,
            v=kv_heads * value_length,
            o=heads * value_length,
            experts=experts,
            vocabulary=self._vocabulary(),
        )
        layers = self._number("block_count", LAYERS_MAX)
        self._check_tensors(sizes, layers)
        every = tuple(self._tensors.values())
        idle = 1 - used / experts
        return GgufFacts(
            path=shards[0], shards=shards, size_bytes=size_bytes,
            name=self._text("general.name", shards[0].stem), architecture=ARCHITECTURE,
            quantisation=self._quantisation(), chat_template=template,
            context_length=self._number("context_length", CONTEXT_TOKENS_MAX), embedding_length=embedding,
            feed_forward_length=sizes.inner, block_count=layers, head_count=heads, head_count_kv=kv_heads,
            key_length=key_length, value_length=value_length, expert_count=experts, expert_used_count=used,
            vocab_size=sizes.vocabulary, tensor_count=len(self._tensors),
            parameters=sum(tensor.elements for tensor in every),
            active_parameters=round(sum(t.elements * (1 - idle * _is_expert(t)) for t in every)),
            weights_bytes=sum(tensor.size_bytes for tensor in every),
            active_weights_bytes=round(
                sum(t.size_bytes * (1 - idle * _is_expert(t)) for t in every if t.name != "token_embd.weight")
            ),
            repacked_bytes=sum(tensor.size_bytes for tensor in every if _is_repacked(tensor)),
        )  # fmt: skip

    def check_kind(self) -> tuple[int, int, str]:
        """Is it a Mixtral that can hold a conversation? Experts, experts used, chat template."""
        self._check_architecture()
        return *self._experts(), self._template()

    def _check_architecture(self) -> None:
        architecture = self._values.get("general.architecture")
        if architecture is None:
            raise self._bad(f"it does not say its architecture; {GET_IT_AGAIN}")
        if architecture != ARCHITECTURE:
            raise self._bad(
                f"its architecture is {str(architecture)[:40]!r}; only Mixtral files (architecture 'llama' with "
                "experts) run here"
            )

    def _experts(self) -> tuple[int, int]:
        if any(_SPLIT_EXPERT.match(name) for name in self._tensors):
            # https://github.com/ggml-org/llama.cpp/issues/10244
            raise self._bad(
                "it keeps every expert in a tensor of its own, as Mixtral files made before April 2024 do "
                f"(TheBloke's among them), and llama.cpp no longer reads those; pull {WORKING_REPOSITORIES} instead"
            )
        has_experts = any("_exps." in name for name in self._tensors)
        if "llama.expert_count" not in self._values and not has_experts:
            raise self._bad("it is a dense model without experts; only Mixtral files run here")
        experts = self._number("expert_count", 1024)
        used = self._number("expert_used_count", 1024)
        if used > experts:
            raise self._bad(f"it uses {used} experts of {experts} for every token, which is impossible; {GET_IT_AGAIN}")
        return experts, used

    def _template(self) -> str:
        template = self._text("tokenizer.chat_template", "")
        if not template.strip():
            raise self._bad(
                "it has no chat template, so nobody can say how to put a conversation to it; use an Instruct file "
                f"that has one ({WORKING_REPOSITORIES.split(' or ', maxsplit=1)[0]})"
            )
        if len(template) > TEMPLATE_MAX_CHARS:
            raise self._bad(f"its chat template has {len(template):,} characters (at most {TEMPLATE_MAX_CHARS:,})")
        return template

    def _vocabulary(self) -> int:
        if not self._text("tokenizer.ggml.model", ""):
            raise self._bad(f"it does not say which tokenizer it needs; {GET_IT_AGAIN}")
        tokens = self._header.array_lengths.get("tokenizer.ggml.tokens", 0)
        if tokens == 0:
            raise self._bad(f"it has no vocabulary; {GET_IT_AGAIN}")
        for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
            if self._header.array_lengths.get(key, tokens) != tokens:
                raise self._bad(f"{key} does not have one entry for each of {tokens:,} tokens; {GET_IT_AGAIN}")
        return tokens

    def _check_epsilon(self) -> None:
        epsilon = self._values.get("llama.attention.layer_norm_rms_epsilon")
        if not isinstance(epsilon, float) or not math.isfinite(epsilon) or epsilon < 0:
            raise self._bad(f"llama.attention.layer_norm_rms_epsilon is {epsilon!r}; {GET_IT_AGAIN}")

    def _check_tensors(self, sizes: "_Sizes", layers: int) -> None:
        expected = {
            "token_embd.weight": (sizes.width, sizes.vocabulary),
            "output_norm.weight": (sizes.width,),
        }
        for layer in range(layers):
            expected |= {f"blk.{layer}.{name}.weight": shape for name, shape in sizes.of_a_layer().items()}
        for name, shape in expected.items():
            tensor = self._tensors.get(name)
            if tensor is None:
                also = " (llama.cpp would load it and answer nonsense)" if "ffn_gate_exps" in name else ""
                raise self._bad(f"the tensor {name!r} is missing{also}; {GET_IT_AGAIN}")
            if tensor.shape != shape:
                raise self._bad(f"the tensor {name!r} has shape {tensor.shape}, not {shape}; {GET_IT_AGAIN}")

    def _quantisation(self) -> str:
        declared = self._values.get("general.file_type")
        if isinstance(declared, int) and declared in FILE_TYPES:
            return FILE_TYPES[declared]
        sizes: Counter[str] = Counter()
        for tensor in self._tensors.values():
            sizes[tensor.type.name] += tensor.size_bytes
        return sizes.most_common(1)[0][0]

    def _number(self, key: str, most: int, default: int | None = None) -> int:
        value: Scalar | None = self._values.get(f"llama.{key}", default)
        if value is None:
            known = " (it is a list)" if f"llama.{key}" in self._header.array_lengths else ""
            raise self._bad(f"llama.{key} is missing{known}; {GET_IT_AGAIN}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self._bad(f"llama.{key} is {str(value)[:40]}, not a number from 1 to {most:,}; {GET_IT_AGAIN}")
        return value

    def _text(self, key: str, default: str) -> str:
        value = self._values.get(key, default)
        return value if isinstance(value, str) else default

    def _bad(self, cause: str) -> BadFileError:
        return BadFileError(f"{self._header.path.name}: {cause}")


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The lengths that the tensors' shapes are made of."""

    width: int
    inner: int
    q: int
    k: int
    v: int
    o: int
    experts: int
    vocabulary: int

    def of_a_layer(self) -> dict[str, tuple[int, ...]]:
        width, inner, experts = self.width, self.inner, self.experts
        return {
            "attn_norm": (width,),
            "attn_q": (width, self.q),
            "attn_k": (width, self.k),
            "attn_v": (width, self.v),
            "attn_output": (self.o, width),
            "ffn_norm": (width,),
            "ffn_gate_inp": (width, experts),
            "ffn_gate_exps": (width, inner, experts),
            "ffn_up_exps": (width, inner, experts),
            "ffn_down_exps": (inner, width, experts),
        }


def _is_expert(tensor: TensorInfo) -> bool:
    return "_exps." in tensor.name


def _is_repacked(tensor: TensorInfo) -> bool:
    # llama.cpp rearranges matrices that it multiplies with, never the embedding it looks rows up in, and only where
    # the rows go in groups of eight (ggml-cpu/repack.cpp).
    return (
        tensor.type.name in REPACKED_TYPES
        and len(tensor.shape) > 1
        and tensor.shape[1] % 8 == 0
        and tensor.name != "token_embd.weight"
    )
