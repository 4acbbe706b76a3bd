from local_backend.jobs import Job, sequences_of
from local_backend.pace import FIRST_PROMPT_TOKENS, PROMPT_MIN_TOKENS, STEP_TARGET_S, Pace
from local_backend.sampling import SamplingParams


def job(number, prompt=100, output=1000):
    return Job(id=number, prompt=[1] * prompt, output_max_tokens=output, params=SamplingParams(seed=1))


def test_the_first_prompt_goes_in_small_pieces():
    assert Pace(batch_max_tokens=512).prompt_tokens(0) == FIRST_PROMPT_TOKENS


def test_pieces_are_sized_so_that_a_step_takes_the_target():
    for token_s in (0.0001, 0.001, 0.004, 0.1):
        pace = Pace(batch_max_tokens=512)
        for _ in range(20):
            tokens = pace.prompt_tokens(0)
            pace.learn(tokens * token_s, tokens, 0)
        tokens = pace.prompt_tokens(0)
        assert PROMPT_MIN_TOKENS <= tokens <= 512
        assert tokens * token_s <= STEP_TARGET_S * 1.05 or tokens == PROMPT_MIN_TOKENS
        assert tokens * token_s >= STEP_TARGET_S * 0.9 or tokens == 512


def test_running_choices_leave_less_room_for_prompts():
    pace = Pace(batch_max_tokens=512)
    pace.learn(0.100, 0, 4)
    pace.learn(0.100, 100, 0)
    assert pace.prompt_tokens(4) < pace.prompt_tokens(0)


def test_a_wait_is_nothing_before_anything_was_measured_and_grows_with_the_queue():
    pace = Pace(batch_max_tokens=512)
    queue = [sequence for number in range(8) for sequence in sequences_of(job(number))]
    assert pace.wait_s(queue[:4], queue[4:], 4) == 0
    pace.learn(0.05, 0, 4)
    pace.learn(0.5, 100, 0)
    short, long = pace.wait_s(queue[:4], [], 4), pace.wait_s(queue[:4], queue[4:], 4)
    assert 0 < short < long
    assert pace.wait_s(queue[:4], queue[4:], 8) < long


def test_short_answers_shorten_the_expected_wait():
    pace = Pace(batch_max_tokens=512)
    pace.learn(0.05, 0, 4)
    before = pace.wait_s(sequences_of(job(1)), [], 1)
    for _ in range(30):
        pace.learn_length(5)
    assert pace.wait_s(sequences_of(job(1)), [], 1) < before / 3
