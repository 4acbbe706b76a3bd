r"""The demonstration model's tokenizer (sentencepiece BPE) and how a conversation becomes token ids.

The byte layout is the one of the GGUF's chat template: `<s>[INST] system\n\nquestion [/INST]answer</s>`, the
answer right behind `[/INST]`. `[INST]` and `[/INST]` are control tokens, so that no text a user types can turn into
them.
"""

import io
from collections.abc import Iterable, Iterator
from itertools import islice

import sentencepiece

from local_backend.demo_model.corpus import Conversation, generate

VOCABULARY_SIZE = 1024
UNKNOWN_ID, BEGIN_ID, END_ID, OPEN_ID, CLOSE_ID = 0, 1, 2, 3, 4
SAMPLE_CONVERSATIONS = 20_000


def train_tokenizer(seed: int) -> bytes:
    """Learn the vocabulary from a sample of the corpus. Returns the sentencepiece model file's bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(islice(generate(seed), SAMPLE_CONVERSATIONS)),
        model_writer=model,
        vocab_size=VOCABULARY_SIZE,
        model_type="bpe",
        byte_fallback=True,
        # Text goes in and comes out unchanged: no normalisation, no space put in front.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        character_coverage=1.0,
        unk_id=UNKNOWN_ID,
        bos_id=BEGIN_ID,
        eos_id=END_ID,
        pad_id=-1,
        control_symbols=["[INST]", "[/INST]"],
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def load_tokenizer(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """Open a tokenizer and make sure that the control tokens are where the template expects them."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    if (tokenizer.piece_to_id("[INST]"), tokenizer.piece_to_id("[/INST]")) != (OPEN_ID, CLOSE_ID):
        raise ValueError("the tokenizer has its control tokens in unexpected places; train it again")
    return tokenizer


def encode(tokenizer: sentencepiece.SentencePieceProcessor, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Token ids, and beside each 1 where the token is part of an answer, 0 where it is part of a prompt."""
    ids, answer = [BEGIN_ID], [0]
    for place, turn in enumerate(conversation.turns):
        lead = f"{conversation.system}\n\n" if conversation.system and place == 0 else ""
        prompt = [OPEN_ID, *tokenizer.encode(f" {lead}{turn.question} "), CLOSE_ID]
        reply = [*tokenizer.encode(turn.answer), END_ID]
        ids += prompt + reply
        answer += [0] * len(prompt) + [1] * len(reply)
    return ids, answer


def _lines(conversations: Iterable[Conversation]) -> Iterator[str]:
    for conversation in conversations:
        for turn in conversation.turns:
            yield from f"{turn.question}\n{turn.answer}".split("\n")
