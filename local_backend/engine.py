"""The continuous-batching loop: one thread that owns the context and serves every running choice with each decode.

A step decodes one token of every running choice first and fills the rest of the batch with pieces of prompts, as many
tokens as the measured speed fits into STEP_TARGET_S, so that a newcomer never stalls the others for long. Requests
come in and are cancelled from another thread; every change takes effect at the next step's border.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs

from local_backend import llama
from local_backend.errors import ContextLengthError, EngineError, LocalError, QueueFullError
from local_backend.fair_queue import FairQueue
from local_backend.frames import WorkerStats
from local_backend.jobs import Failed, Finished, Happening, Job, Sequence, Started, TextOut, sequences_of
from local_backend.pace import Pace, bounded_wait_s
from local_backend.sampling import Sampler, logprob_entry
from local_backend.slots import Slot, place
from local_backend.threads import Threads

BATCH_MAX_TOKENS: Final = 512
WAIT_MAX_S: Final = 120.0
"""A request whose estimated wait is longer is refused at once, its deadline unknown or later."""
REPORT_INTERVAL_S: Final = 0.002
"""Text is passed on at most so often: a tiny model makes thousands of tokens a second, and nobody reads that fast."""

Sink = Callable[[list[Happening]], None]


class Engine:
    """Runs Jobs on one model.

    Args:
        model: The loaded model.
        slots: How many choices run at once.
        context_tokens: Prompt and answer of one choice together.
        queue: How many requests may wait. They get slots in turns of their callers; a full queue refuses whoever has
            most in it.
        threads: CPU threads.
        second_thread: Whether a step of several rows may take one more, where that makes it faster.
        sink: Told what happened after each step, from the engine's thread.
        abortable: Whether a cancelled prompt is worth interrupting a decode for (big models).

    Raises:
        llama.LoadError: No memory for the context.
    """

    def __init__(  # keyword-only facts, each needed once
        self,
        model: llama.Model,
        *,
        slots: int,
        context_tokens: int,
        queue: int,
        threads: int,
        sink: Sink,
        abortable: bool = False,
        second_thread: bool = False,
    ) -> None:
        self._model = model
        self._vocabulary = model.vocabulary
        self._context_tokens = context_tokens
        self._queue = queue
        self._sink = sink
        self._context = llama.Context(
            model, cells=slots * context_tokens, sequences=slots, batch_tokens=BATCH_MAX_TOKENS, threads=threads
        )
        if abortable:
            self._context.set_abort(lambda: self._abort)
        self._abortable = abortable
        self._abort = False
        self._batch = llama.Batch(BATCH_MAX_TOKENS, slots)
        self._slots = [Slot(number, []) for number in range(slots)]
        self._slot_uses = 0
        self._running: list[Sequence] = []
        self._waiting: FairQueue[list[Sequence]] = FairQueue()
        self._seating: deque[Sequence] = deque()
        """Choices of the one Job whose turn it is, for as long as not all of them have slots."""
        self._cancelled: set[int] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._pressing = False
        self._pace = Pace(batch_max_tokens=BATCH_MAX_TOKENS)
        self._threads = Threads(threads, second_thread=second_thread)
        self._steps = self._admitted = self._generated = self._prompted = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop and give the memory back. Blocks for at most one step."""
        with self._changed:
            self._stopping = self._abort = True
            self._changed.notify()
        self._thread.join()
        self._context.close()

    # --- called from the worker's event loop ---

    def admit(self, job: Job) -> None:
        """Queue a Job.

        Raises:
            ContextLengthError: Prompt and answer do not fit a slot.
            QueueFullError: Too many wait, and this caller has no fewer of them than others; or the wait would outlast
                the Job's deadline.
        """
        self._check_length(job)
        expected_tokens = self._pace.expected_tokens(job.output_max_tokens)
        cost_tokens = len(job.prompt) + job.choices * expected_tokens
        choices = sequences_of(job)
        for sequence in choices:
            sequence.expected_tokens = expected_tokens
        with self._changed:
            outdone = None if self._has_slot_for_next() else self._make_room(job, cost_tokens)
            self._waiting.push(job.caller, choices, cost_tokens)
            self._changed.notify()
        if outdone is not None:
            self._sink([outdone])

    def _check_length(self, job: Job) -> None:
        wanted = len(job.prompt) + job.output_max_tokens
        if job.output_max_tokens < 1 or wanted > self._context_tokens:
            raise ContextLengthError(
                f"the local model's context is {self._context_tokens} tokens; this request needs "
                f"{len(job.prompt)} for the messages and {max(job.output_max_tokens, 1)} for the answer. "
                "Shorten the messages, ask for fewer tokens, or raise context_tokens",
                param="messages",
            )

    def _has_slot_for_next(self) -> bool:
        waiting = len(self._seating) + sum(len(choices) for choices in self._waiting)
        return waiting < len(self._slots) - len(self._running)

    def _make_room(self, job: Job, cost_tokens: int) -> Failed | None:
        """A place to wait in. Where that is taken from another caller's Job: the end of that one."""
        ahead = [each for choices in self._waiting.ahead_of(job.caller, cost_tokens) for each in choices]
        wait_s = self._pace.wait_s(self._running, [*self._seating, *ahead], len(self._slots))
        limit_s = WAIT_MAX_S if job.deadline_s is None else min(WAIT_MAX_S, job.deadline_s)
        if wait_s > limit_s:
            raise QueueFullError(
                f"the local model would only get to this request in about {wait_s:.0f} s, which is too late",
                retry_after_s=bounded_wait_s(wait_s - limit_s),
            )
        free = len(self._slots) - len(self._running)
        if len(self._waiting) - free < self._queue:
            return None
        everybody = [*self._seating, *(each for choices in self._waiting for each in choices)]
        full = QueueFullError(
            f"the local model's queue is full ({self._queue} requests wait); ask again later",
            retry_after_s=bounded_wait_s(self._pace.wait_s(self._running, everybody, len(self._slots))),
        )
        outdone = self._waiting.give_way(job.caller)
        if outdone is None:
            raise full
        return Failed(outdone[0].job.id, full)

    def cancel(self, job_id: int) -> bool:
        """Drop a Job wherever it is; nothing more is reported of it. True when it never got a slot."""
        with self._changed:
            self._seating = deque(each for each in self._seating if each.job.id != job_id)
            waited = self._waiting.remove(lambda choices: choices[0].job.id == job_id) is not None
            running = {sequence.job.id for sequence in self._running}
            if job_id in running:
                self._cancelled.add(job_id)
                self._abort = self._abortable and running == {job_id}
            return waited

    def withdraw(self, job_id: int) -> bool:
        """Drop a Job if it still waits. False when it has a slot, or is over."""
        with self._changed:
            return self._waiting.remove(lambda choices: choices[0].job.id == job_id) is not None

    def waits(self, job_id: int) -> bool:
        """Whether a Job was not given a slot yet and there is none free for it."""
        with self._changed:
            free = len(self._slots) - len(self._running)
            waits = any(choices[0].job.id == job_id for choices in self._waiting)
            return waits and len(self._seating) + len(self._waiting) > free

    def stats(self) -> WorkerStats:
        """How things are. Counters are of the last finished step."""
        with self._changed:
            return WorkerStats(
                running=len(self._running),
                waiting=len(self._waiting),
                kv_running_tokens=sum(len(slot.tokens) for slot in self._slots if slot.busy),
                kv_kept_tokens=sum(len(slot.tokens) for slot in self._slots if not slot.busy),
                steps=self._steps,
                admitted=self._admitted,
                generated_tokens=self._generated,
                prompt_tokens=self._prompted,
                rss_bytes=0,
            )

    # --- the engine's thread ---

    def _run(self) -> None:
        happenings: list[Happening] = []
        reported_s = 0.0
        while self._prepare():
            self._step(happenings)
            now_s = time.monotonic()
            # A choice's first word and its end are told at once, so nothing is untold when the loop goes to sleep.
            if happenings and (self._pressing or now_s - reported_s >= REPORT_INTERVAL_S):
                self._sink(happenings)
                happenings, reported_s, self._pressing = [], now_s, False

    def _prepare(self) -> bool:
        """Between two steps: drop what was cancelled, seat what waits. False when the engine is to stop."""
        happenings: list[Happening] = []
        with self._changed:
            while not (self._running or self._waiting or self._seating or self._stopping):
                self._changed.wait()
            if self._stopping:
                return False
            self._abort = False
            for sequence in [each for each in self._running if each.job.id in self._cancelled]:
                self._drop(sequence)
            self._cancelled.clear()
            self._seat(happenings)
        if happenings:
            self._sink(happenings)
        return True

    def _seat(self, happenings: list[Happening]) -> None:
        while sequence := self._next():
            leader = sequence.leader
            if leader is not None and not leader.prompt_done and not leader.over:
                return
            placement = place(sequence.job.prompt, self._slots)
            if placement is None:
                return
            self._seating.popleft()
            slot = self._slots[placement.slot]
            self._fill(slot, placement.donor, placement.shared_tokens)
            self._slot_uses += 1
            slot.busy, slot.used_at, sequence.slot = True, self._slot_uses, slot.id
            sequence.sampler = self._sampler(sequence)
            self._running.append(sequence)
            self._admitted += 1
            if leader is None:
                happenings.append(Started(sequence.job.id, placement.shared_tokens))

    def _next(self) -> Sequence | None:
        """The choice that gets the next slot. It is only now decided whose turn it is, if there is a slot at all."""
        if not self._seating and len(self._running) < len(self._slots):
            self._seating.extend(self._waiting.pop() or ())
        return self._seating[0] if self._seating else None

    def _fill(self, slot: Slot, donor: int, shared_tokens: int) -> None:
        if donor == slot.id:
            self._context.forget(slot.id, shared_tokens)
            del slot.tokens[shared_tokens:]
            return
        self._context.forget(slot.id)
        if shared_tokens:
            self._context.share(donor, slot.id, shared_tokens)
        slot.tokens = self._slots[donor].tokens[:shared_tokens]

    def _sampler(self, sequence: Sequence) -> Sampler:
        job, grammar = sequence.job, sequence.job.grammar
        if grammar is not None and job.choices > 1:
            grammar = grammar.clone()
        params = structs.replace(job.params, seed=job.params.seed + sequence.choice)
        return Sampler(self._vocabulary, params, job.prompt, grammar)

    def _step(self, happenings: list[Happening]) -> None:
        prompt_tokens = self._fill_batch()
        if self._batch.count == 0:
            return
        started = time.monotonic()
        self._context.use_threads(self._threads.begin(self._batch.count, started))
        code = self._context.decode(self._batch)
        self._steps += 1
        if code != 0:
            self._recover(code, happenings)
            return
        self._commit()
        ended = time.monotonic()
        self._pace.learn(ended - started, prompt_tokens, self._batch.count - prompt_tokens)
        self._threads.end(0 if prompt_tokens else self._batch.count, ended - started, ended)
        self._prompted += prompt_tokens
        for sequence in list(self._running):
            if sequence.row >= 0:
                self._advance(sequence, happenings)

    def _fill_batch(self) -> int:
        """Put this step's tokens into the batch. Returns how many are prompt tokens."""
        batch, slots = self._batch, self._slots
        batch.clear()
        for sequence in self._running:
            if sequence.prompt_done:
                sequence.pending = [sequence.last]
                sequence.row = batch.add(
                    sequence.slot, sequence.pending, len(slots[sequence.slot].tokens), want_last=True
                )
        decoding = batch.count
        room = min(self._pace.prompt_tokens(decoding), batch.tokens_max - decoding)
        for sequence in self._running:
            if sequence.prompt_done or room <= 0:
                continue
            done = len(slots[sequence.slot].tokens)
            chunk = sequence.job.prompt[done : done + room]
            last = done + len(chunk) == len(sequence.job.prompt)
            row = batch.add(sequence.slot, chunk, done, want_last=last)
            sequence.pending, sequence.row = chunk, row if last else -1
            room -= len(chunk)
        return batch.count - decoding

    def _commit(self) -> None:
        """The batch is in the KV cache now."""
        for sequence in self._running:
            self._slots[sequence.slot].tokens += sequence.pending
            sequence.pending = []
            sequence.prompt_done = sequence.prompt_done or sequence.row >= 0

    def _recover(self, code: int, happenings: list[Happening]) -> None:
        """Take a failed batch back. An aborted one is tried again without what was cancelled; else all in it fail."""
        for sequence in self._running:
            self._context.forget(sequence.slot, len(self._slots[sequence.slot].tokens))
            sequence.pending, sequence.row = [], -1
        if code == llama.ABORTED:
            return
        error = EngineError(f"the local engine could not compute this step (llama.cpp answered {code})")
        with self._changed:
            self._fail({sequence.job.id for sequence in self._running}, error, happenings)
            for slot in self._slots:
                slot.tokens.clear()
            self._context.clear()

    def _advance(self, sequence: Sequence, happenings: list[Happening]) -> None:
        """Sample the next token of a choice and say what came of it."""
        job, row, sampler = sequence.job, sequence.row, sequence.sampler
        sequence.row = -1
        if sampler is None:
            return
        try:
            token = sampler.pick(self._context, row)
        except LocalError as error:
            with self._changed:
                self._fail({job.id}, error, happenings)
            return
        if token in self._vocabulary.ends:
            self._finish(sequence, "stop", happenings)
            return
        sequence.last = token
        sequence.output_tokens += 1
        self._pressing = self._pressing or sequence.output_tokens == 1
        self._generated += 1
        entry = logprob_entry(self._vocabulary, self._context, row, token, job.top_logprobs) if job.logprobs else None
        released = sequence.assembler.push(self._vocabulary.piece(token), entry)
        if released.text or released.entries:
            happenings.append(TextOut(job.id, sequence.choice, released.text, released.entries))
        if released.stopped:
            self._finish(sequence, "stop", happenings)
        elif sequence.output_tokens >= job.output_max_tokens:
            self._finish(sequence, "length", happenings)

    def _finish(self, sequence: Sequence, reason: str, happenings: list[Happening]) -> None:
        job, rest = sequence.job, sequence.assembler.finish()
        if rest.text or rest.entries:
            happenings.append(TextOut(job.id, sequence.choice, rest.text, rest.entries))
        happenings.append(Finished(job.id, sequence.choice, reason, sequence.output_tokens))
        self._pressing = True
        self._pace.learn_length(sequence.output_tokens)
        with self._changed:
            self._release(sequence)

    def _fail(self, jobs: set[int], error: LocalError, happenings: list[Happening]) -> None:
        """Under the lock: end Jobs with an error, running and waiting choices alike."""
        for sequence in [each for each in self._running if each.job.id in jobs]:
            self._drop(sequence)
        self._seating = deque(each for each in self._seating if each.job.id not in jobs)
        self._pressing = True
        happenings.extend(Failed(job, error) for job in sorted(jobs))

    def _drop(self, sequence: Sequence) -> None:
        """Under the lock: end a choice and forget its KV cells."""
        slot = self._slots[sequence.slot]
        self._context.forget(slot.id)
        slot.tokens.clear()
        self._release(sequence)

    def _release(self, sequence: Sequence) -> None:
        """Under the lock: the slot is free; what it holds stays for a later prompt that begins alike."""
        sequence.over = True
        self._waiting.charge(sequence.job.caller, sequence.output_tokens - sequence.expected_tokens)
        self._slots[sequence.slot].busy = False
        self._running.remove(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
