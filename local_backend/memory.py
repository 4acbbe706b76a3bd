"""Will this model fit into this machine's memory? Answered from the file's header, before a byte of it is loaded.

What a worker holds: the weights, a rearranged copy of some of them when the file is mapped ("repack"), the
attention memory of every token of every slot (llama.cpp touches all of it at once), buffers to compute in, and the
process itself. The formulas were compared with the resident size of real workers
(`tests/local_backend/test_memory.py` holds them to 10 %).
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from local_backend.gguf import GgufFacts
from local_backend.quantisations import BITS_PER_WEIGHT, smaller_than

RESERVE_BYTES: Final = 256 << 20
"""Left free for everything else that happens on the machine."""
USABLE_SHARE: Final = 0.9
"""Of the memory that is available now, this much may be planned with."""
BATCH_TOKENS: Final = 512
"""The most tokens that the engine computes in one step."""
PROCESS_BYTES: Final = 37_000_000
"""A worker with the library loaded and no model."""
FIXED_COMPUTE_BYTES: Final = 4_000_000
VOCABULARY_ENTRY_BYTES: Final = 150
"""llama.cpp's tables for one token of the vocabulary."""
FLOATS_PER_CHANNEL: Final = 4.2
"""Intermediate results a step keeps for each token and channel."""
CELLS_ROUNDING: Final = 256
"""llama.cpp rounds the number of attention cells up to a multiple of this."""
CONTEXT_STEP_TOKENS: Final = 256
SMALLEST_CONTEXT_TOKENS: Final = 512
"""A smaller context is not worth proposing."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a worker would hold resident, by part, in bytes."""

    weights_bytes: int
    repack_bytes: int
    kv_bytes: int
    compute_bytes: int
    process_bytes: int

    @property
    def total_bytes(self) -> int:
        """All parts together: the resident size to expect."""
        return self.weights_bytes + self.repack_bytes + self.kv_bytes + self.compute_bytes + self.process_bytes


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether and how to load a model."""

    fits: bool
    mmap: bool
    """Map the file instead of reading it: when it fits only without the reserve. Its pages can be dropped."""
    repack: bool
    """Let llama.cpp rearrange weights: free when the file is read, a second copy when it is mapped."""
    estimate: Estimate
    need_bytes: int
    """Estimate plus reserve."""
    usable_bytes: int
    context_tokens: int
    """Per slot, as asked."""
    slots: int
    largest_context_tokens: int
    """The largest context per slot that fits with as many slots; 0 when none does."""
    smaller_quantisation: str | None
    """The best quantisation of the same model that fits with the context asked for, if this one does not."""
    refusal: str | None
    """Why not, with the numbers and what to do; None when it fits."""


def estimate(facts: GgufFacts, *, context_tokens: int, slots: int, mmap: bool, repack: bool) -> Estimate:
    """What a worker holds with `slots` slots of `context_tokens` tokens each."""
    cells = -(-slots * context_tokens // CELLS_ROUNDING) * CELLS_ROUNDING
    channels = facts.embedding_length + facts.expert_used_count * facts.feed_forward_length
    compute_bytes = round(
        FIXED_COMPUTE_BYTES
        + VOCABULARY_ENTRY_BYTES * facts.vocab_size
        + 4 * facts.vocab_size * slots  # the logits of one row for every slot
        + 4 * FLOATS_PER_CHANNEL * BATCH_TOKENS * channels
    )
    return Estimate(
        weights_bytes=facts.weights_bytes,
        repack_bytes=facts.repacked_bytes if mmap and repack else 0,
        kv_bytes=cells * facts.kv_bytes_per_token,
        compute_bytes=compute_bytes,
        process_bytes=PROCESS_BYTES,
    )


def fit(facts: GgufFacts, *, context_tokens: int, slots: int, available_bytes: int) -> Fit:
    """Decide whether and how to load a model. Pure.

    Args:
        facts: The file, as `gguf.inspect` found it.
        context_tokens: Per slot.
        slots: Requests that run at the same time.
        available_bytes: From `available_bytes()`; `USABLE_SHARE` of it is planned with.
    """
    usable_bytes = int(available_bytes * USABLE_SHARE)
    # Read into memory, rearranged in place; or mapped, not rearranged. Both hold the weights once.
    parts = estimate(facts, context_tokens=context_tokens, slots=slots, mmap=False, repack=True)
    comfortable = parts.total_bytes + RESERVE_BYTES <= usable_bytes
    fits = parts.total_bytes <= usable_bytes
    found = Fit(
        fits=fits,
        mmap=not comfortable,
        repack=comfortable,
        estimate=parts,
        need_bytes=parts.total_bytes + RESERVE_BYTES,
        usable_bytes=usable_bytes,
        context_tokens=context_tokens,
        slots=slots,
        largest_context_tokens=_largest_context(facts, parts, slots, usable_bytes),
        smaller_quantisation=None if fits else _smaller(facts, parts, usable_bytes),
        refusal=None,
    )
    return found if fits else _refuse(facts, found)


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that a new process could take now: the machine's, or the container's where that is less.

    Where the machine does not say (no /proc), half of nothing known is not a plan: the largest number stands for
    "unknown", and the load itself decides.
    """
    machine = _field(proc / "meminfo", "MemAvailable:", 1024)
    limits = [machine, *_cgroup_room(proc, cgroup)]
    return min((room for room in limits if room is not None), default=sys.maxsize)


def _largest_context(facts: GgufFacts, parts: Estimate, slots: int, usable_bytes: int) -> int:
    room = usable_bytes - (parts.total_bytes - parts.kv_bytes)
    per_slot = room // (facts.kv_bytes_per_token * slots) // CONTEXT_STEP_TOKENS * CONTEXT_STEP_TOKENS
    largest = min(per_slot, facts.context_length)
    return largest if largest >= SMALLEST_CONTEXT_TOKENS else 0


def _smaller(facts: GgufFacts, parts: Estimate, usable_bytes: int) -> str | None:
    room = usable_bytes - (parts.total_bytes - parts.weights_bytes)
    bits_now = facts.weights_bytes * 8 / facts.parameters
    fitting = (name for name in smaller_than(bits_now) if facts.parameters * BITS_PER_WEIGHT[name] / 8 <= room)
    return next(fitting, None)


def _refuse(facts: GgufFacts, found: Fit) -> Fit:
    parts = found.estimate
    advice: list[str] = []
    if found.largest_context_tokens:
        advice.append(f"set context_tokens to {found.largest_context_tokens} or less")
    if found.smaller_quantisation is not None:
        advice.append(f"use the {found.smaller_quantisation} file of the same model")
    if not advice:
        advice.append(f"use a smaller model, or a machine with {_gb(parts.total_bytes / USABLE_SHARE)} free")
    refusal = (
        f"{facts.path.name} needs {_gb(parts.total_bytes)} of memory (weights {_gb(parts.weights_bytes)}, "
        f"{found.slots} x {found.context_tokens} tokens of context {_gb(parts.kv_bytes)}, computing "
        f"{_gb(parts.compute_bytes + parts.process_bytes)}), and {_gb(found.usable_bytes)} can be used now: "
        + ", or ".join(advice)
    )
    return replace(found, refusal=refusal)


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.0f} MB"


def _cgroup_room(proc: Path, cgroup: Path) -> list[int | None]:
    """Room in every control group around this process, version 2 and 1."""
    rooms: list[int | None] = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            base, limit, current = cgroup, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, current = cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        here = base / name.strip("/")
        # In a container the named group is often mounted as the root, so the root is asked as well.
        around = {here, *(parent for parent in here.parents if parent.is_relative_to(base)), base}
        rooms.extend(_group_room(folder, limit, current) for folder in around)
    return rooms


def _group_room(folder: Path, limit: str, current: str) -> int | None:
    most, used = _text(folder / limit).strip(), _text(folder / current).strip()
    if not most.isdigit() or not used.isdigit():
        return None  # "max", or no such file: no limit here
    # Cached file pages count as used but are given up when memory is asked for.
    cached = _field(folder / "memory.stat", "inactive_file", 1) or 0
    return max(0, int(most) - int(used) + cached)


def _field(path: Path, name: str, unit_bytes: int) -> int | None:
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1]) * unit_bytes
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
