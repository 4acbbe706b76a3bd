"""The Mixtral architecture in torch, just large enough to be trained on one CPU core.

Names and shapes of the parameters follow the GGUF's tensors, so that `gguf_writer` only copies. Position encoding
is the interleaved-pair form that llama.cpp uses for this architecture; the router is softmax, top-2, renormalised.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that make the model what it is."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 256
    experts: int = 8
    experts_used: int = 2
    rope_base: float = 1e6
    norm_epsilon: float = 1e-5
    context_tokens: int = 32_768
    """What the file declares, as the real Mixtral does; training sees 160 tokens at a time."""

    @property
    def head_width(self) -> int:
        """Numbers per attention head."""
        return self.width // self.heads


class Attention(nn.Module):
    """Grouped-query attention: several query heads share one key and value head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_width
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_v = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix positions: (batch, time, width) in and out; causal."""
        batch, time, width = x.shape
        shape = self.shape

        def split(flat: Tensor, heads: int) -> Tensor:
            return flat.view(batch, time, heads, shape.head_width).transpose(1, 2)

        q = _rotate(split(self.attn_q(x), shape.heads), cos, sin)
        k = _rotate(split(self.attn_k(x), shape.kv_heads), cos, sin)
        v = split(self.attn_v(x), shape.kv_heads)
        repeat = shape.heads // shape.kv_heads
        mixed = functional.scaled_dot_product_attention(
            q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), is_causal=True
        )
        joined: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, time, width))
        return joined


class Experts(nn.Module):
    """Eight gated feed-forward networks and the router that picks two of them for every token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        count, inner, width = shape.experts, shape.feed_forward, shape.width
        self.ffn_gate_inp = nn.Linear(width, count, bias=False)
        self.ffn_gate_exps = nn.Parameter(torch.randn(count, inner, width) * width**-0.5)
        self.ffn_up_exps = nn.Parameter(torch.randn(count, inner, width) * width**-0.5)
        self.ffn_down_exps = nn.Parameter(torch.randn(count, width, inner) * inner**-0.5 * 0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed output, and the load-balance loss (1.0 when every expert gets its share)."""
        shape = self.shape
        tokens = x.reshape(-1, shape.width)
        chances = self.ffn_gate_inp(tokens).softmax(-1)
        weights, chosen = chances.topk(shape.experts_used, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        # Tokens are sorted by expert, so that each expert is three matrix products over its own rows.
        order = chosen.flatten().argsort(stable=True)
        rows = order // shape.experts_used
        counts: list[int] = chosen.flatten().bincount(minlength=shape.experts).tolist()
        parts = [self._one(number, part) for number, part in enumerate(torch.split(tokens[rows], counts))]
        weighted = torch.cat(parts) * weights.flatten()[order][:, None]
        mixed = torch.zeros_like(tokens).index_add(0, rows, weighted)
        used = functional.one_hot(chosen, shape.experts).float().sum(1).mean(0) / shape.experts_used
        return mixed.view_as(x), shape.experts * (used * chances.mean(0)).sum()

    def _one(self, number: int, rows: Tensor) -> Tensor:
        gate = functional.silu(rows @ self.ffn_gate_exps[number].T)
        return (gate * (rows @ self.ffn_up_exps[number].T)) @ self.ffn_down_exps[number].T


class Layer(nn.Module):
    """Attention, then experts, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(shape.width, shape.norm_epsilon)
        self.ffn_norm = nn.RMSNorm(shape.width, shape.norm_epsilon)
        self.attention = Attention(shape)
        self.experts = Experts(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """One layer; the second value is the load-balance loss."""
        x = x + self.attention(self.attn_norm(x), cos, sin)
        mixed, balance = self.experts(self.ffn_norm(x))
        return x + mixed, balance


class TinyMixtral(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, shape.norm_epsilon)
        self.output = nn.Linear(shape.width, shape.vocabulary, bias=False)
        nn.init.normal_(self.token_embd.weight, std=0.5)
        nn.init.normal_(self.output.weight, std=0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, time, vocabulary) for ids (batch, time), and the summed load-balance loss."""
        shape = self.shape
        frequency = shape.rope_base ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angle = torch.arange(ids.shape[1]).float()[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        x = self.token_embd(ids)
        balance = torch.zeros(())
        for layer in self.layers:
            x, part = layer(x, cos, sin)
            balance = balance + part
        return self.output(self.output_norm(x)), balance


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position encoding on pairs (0, 1), (2, 3), ..."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
