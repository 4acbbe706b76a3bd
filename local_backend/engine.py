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
from local_backend.frames import WorkerStats
from local_backend.jobs import Failed, Finished, Happening, Job, Sequence, Started, TextOut, sequences_of
from local_backend.pace import Pace
from local_backend.sampling import Sampler, logprob_entry
from local_backend.slots import Slot, place

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
        queue: How many requests may wait.
        threads: CPU threads.
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
        self._waiting: deque[Sequence] = deque()
        self._cancelled: set[int] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._pressing = False
        self._pace = Pace(batch_max_tokens=BATCH_MAX_TOKENS)
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
            QueueFullError: Too many wait, or the wait would outlast the Job's deadline.
        """
        self._check_length(job)
        with self._changed:
            self._check_room(job)
            self._waiting.extend(sequences_of(job))
            self._changed.notify()

    def _check_length(self, job: Job) -> None:
        wanted = len(job.prompt) + job.output_max_tokens
        if job.output_max_tokens < 1 or wanted > self._context_tokens:
            raise ContextLengthError(
                f"the local model's context is {self._context_tokens} tokens; this request needs "
                f"{len(job.prompt)} for the messages and {max(job.output_max_tokens, 1)} for the answer. "
                "Shorten the messages, ask for fewer tokens, or raise context_tokens",
                param="messages",
            )

    def _check_room(self, job: Job) -> None:
        free = len(self._slots) - len(self._running)
        if len(self._waiting) < free:
            return
        jobs = {sequence.job.id for sequence in self._waiting if sequence.leader is None}
        wait_s = self._pace.wait_s(self._running, list(self._waiting), len(self._slots))
        if len(jobs) - free >= self._queue:
            raise QueueFullError(
                f"the local model's queue is full ({self._queue} requests wait); ask again later",
                retry_after_s=max(1.0, wait_s),
            )
        limit_s = WAIT_MAX_S if job.deadline_s is None else min(WAIT_MAX_S, job.deadline_s)
        if wait_s > limit_s:
            raise QueueFullError(
                f"the local model would only get to this request in about {wait_s:.0f} s, which is too late",
                retry_after_s=max(1.0, wait_s - limit_s),
            )

    def cancel(self, job_id: int) -> bool:
        """Drop a Job wherever it is; nothing more is reported of it. True when it never got a slot."""
        with self._changed:
            mine = [sequence for sequence in self._waiting if sequence.job.id == job_id]
            self._waiting = deque(sequence for sequence in self._waiting if sequence.job.id != job_id)
            running = {sequence.job.id for sequence in self._running}
            if job_id in running:
                self._cancelled.add(job_id)
                self._abort = self._abortable and running == {job_id}
                return False
            return bool(mine)

    def withdraw(self, job_id: int) -> bool:
        """Drop a Job if it still waits. False when it has a slot, or is over."""
        with self._changed:
            if any(sequence.job.id == job_id for sequence in self._running):
                return False
            return self.cancel(job_id)

    def waits(self, job_id: int) -> bool:
        """Whether a Job was not given a slot yet and there is none free for it."""
        with self._changed:
            free = len(self._slots) - len(self._running)
            return any(each.job.id == job_id for each in list(self._waiting)[free:])

    def stats(self) -> WorkerStats:
        """How things are. Counters are of the last finished step."""
        with self._changed:
            running = {sequence.job.id for sequence in self._running}
            waiting = {sequence.job.id for sequence in self._waiting}
            return WorkerStats(
                running=len(self._running),
                waiting=len(waiting - running),
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
            while not (self._running or self._waiting or self._stopping):
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
        while self._waiting:
            sequence = self._waiting[0]
            leader = sequence.leader
            if leader is not None and not leader.prompt_done and not leader.over:
                return
            placement = place(sequence.job.prompt, self._slots)
            if placement is None:
                return
            self._waiting.popleft()
            slot = self._slots[placement.slot]
            self._fill(slot, placement.donor, placement.shared_tokens)
            self._slot_uses += 1
            slot.busy, slot.used_at, sequence.slot = True, self._slot_uses, slot.id
            sequence.sampler = self._sampler(sequence)
            self._running.append(sequence)
            self._admitted += 1
            if leader is None:
                happenings.append(Started(sequence.job.id, placement.shared_tokens))

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
        job = sequence.job
        grammar = job.grammar
        if grammar is not None and job.choices > 1:
            grammar = grammar.clone()
        params = structs.replace(job.params, seed=job.params.seed + sequence.choice)
        return Sampler(self._vocabulary, params, job.prompt, grammar)

    def _step(self, happenings: list[Happening]) -> None:
        prompt_tokens = self._fill_batch()
        if self._batch.count == 0:
            return
        started = time.monotonic()
        code = self._context.decode(self._batch)
        self._steps += 1
        if code != 0:
            self._recover(code, happenings)
            return
        self._commit()
        self._pace.learn(time.monotonic() - started, prompt_tokens, self._batch.count - prompt_tokens)
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
            failed = {sequence.job.id for sequence in self._running}
            self._fail(failed, error, happenings)
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
        job = sequence.job
        rest = sequence.assembler.finish()
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
        self._waiting = deque(each for each in self._waiting if each.job.id not in jobs)
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
        self._slots[sequence.slot].busy = False
        self._running.remove(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
