"""Train the demonstration model: `python -m local_backend.demo_model.train --help`.

Needs `requirements/training.in` (torch is not a dependency of the product). Everything is seeded and counted in
steps, with one thread, so that the same machine and library versions give the same file. About 20 minutes on one
core for 3,200 steps.
"""

import argparse
import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.demo_model.architecture import Shape, TinyMixtral
from local_backend.demo_model.corpus import generate
from local_backend.demo_model.gguf_writer import write_gguf
from local_backend.demo_model.tokens import encode, load_tokenizer, train_tokenizer

TOKENIZER_SEED, WEIGHTS_SEED, CORPUS_SEED = 7, 0, 3
BATCH_ROWS, ROW_TOKENS = 24, 160
LEARNING_RATE = 4e-3
WARM_UP_STEPS = 60
FLAT_SHARE = 0.3
"""Share of the steps at full learning rate; from there it falls in a straight line."""
LAST_RATE_SHARE = 0.02
PROMPT_WEIGHT = 0.1
"""A prompt token counts a tenth of an answer token: the model is to answer, not to ask."""
BALANCE_WEIGHT = 0.01
CLIP_NORM = 1.0
REPORT_STEPS = 50
CHECKPOINT_STEPS = 200

log = logging.getLogger("train")


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Inputs, what should follow each of them, and how much each counts; all (rows, tokens)."""

    inputs: Tensor
    targets: Tensor
    is_answer: Tensor


def batches(tokenizer: sentencepiece.SentencePieceProcessor) -> Iterator[Batch]:
    """Pack conversations end to end into rows, for ever."""
    need = BATCH_ROWS * (ROW_TOKENS + 1)
    ids: list[int] = []
    marks: list[int] = []
    for conversation in generate(CORPUS_SEED):
        new_ids, new_marks = encode(tokenizer, conversation)
        ids += new_ids
        marks += new_marks
        if len(ids) >= need:
            rows = torch.tensor(ids[:need]).view(BATCH_ROWS, ROW_TOKENS + 1)
            weights = torch.tensor(marks[:need], dtype=torch.float).view(BATCH_ROWS, ROW_TOKENS + 1)
            yield Batch(rows[:, :-1], rows[:, 1:], weights[:, 1:])
            del ids[:need], marks[:need]


def learning_rate(step: int, steps: int) -> float:
    """The rate at `step` of `steps`: a short warm-up, a flat part, then a straight fall."""
    done = step / steps
    fall = 1.0 if done < FLAT_SHARE else max(LAST_RATE_SHARE, (1 - done) / (1 - FLAT_SHARE))
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * fall


def losses(model: TinyMixtral, batch: Batch) -> tuple[Tensor, float]:
    """The loss to train on, and the mean loss over answer tokens alone, in nats."""
    logits, balance = model(batch.inputs)
    each = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    each = each.view_as(batch.is_answer)
    weight = batch.is_answer + PROMPT_WEIGHT * (1 - batch.is_answer)
    answer = ((each * batch.is_answer).sum() / batch.is_answer.sum()).item()
    return (each * weight).sum() / weight.sum() + BALANCE_WEIGHT * balance, answer


def train(model: TinyMixtral, tokenizer: sentencepiece.SentencePieceProcessor, steps: int, checkpoint: Path) -> None:
    """Run `steps` steps in place, reporting as it goes."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.97))
    started_s = time.monotonic()
    smooth: float | None = None
    for step, batch in zip(range(steps), batches(tokenizer), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss, answer = losses(model, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        smooth = answer if smooth is None else 0.98 * smooth + 0.02 * answer
        if (step + 1) % REPORT_STEPS == 0:
            spent_s = time.monotonic() - started_s
            log.info(
                "step %d of %d, %.0f s, %.0f s left, answer loss %.4f",
                step + 1, steps, spent_s, spent_s / (step + 1) * (steps - step - 1), smooth,
            )  # fmt: skip
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
            torch.save(model.state_dict(), checkpoint)


def main() -> None:
    """Parse arguments, train, write the GGUF."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the GGUF to write; a checkpoint and the tokenizer go beside it")
    parser.add_argument("--steps", type=int, default=3200, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--from-checkpoint", action="store_true", help="only write the GGUF, from the last checkpoint")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out: Path = arguments.out
    checkpoint, tokenizer_file = out.with_suffix(".pt"), out.with_suffix(".tokenizer")

    torch.manual_seed(WEIGHTS_SEED)
    # More threads wait for each other at every small matrix, and would add in another order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    if not tokenizer_file.exists():
        tokenizer_file.write_bytes(train_tokenizer(TOKENIZER_SEED))
    tokenizer = load_tokenizer(tokenizer_file.read_bytes())
    model = TinyMixtral(Shape())
    log.info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))
    if not arguments.from_checkpoint:
        train(model, tokenizer, arguments.steps, checkpoint)
    model.load_state_dict(torch.load(checkpoint))
    write_gguf(out, model, tokenizer)
    log.info("%s: %d bytes", out, out.stat().st_size)


if __name__ == "__main__":
    main()
