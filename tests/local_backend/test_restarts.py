from local_backend.restarts import RestartPolicy, Suspects


def test_back_off_grows_and_three_crashes_in_a_minute_open_the_circuit():
    policy = RestartPolicy()
    assert policy.after_crash(0.0, 0).delay_s == 0.2
    second, third = policy.after_crash(1.0, 0), policy.after_crash(2.0, 0)
    assert (second.delay_s, second.circuit_open) == (1.0, False)
    assert (third.delay_s, third.circuit_open) == (30.0, True)


def test_crashes_far_apart_keep_the_circuit_closed():
    policy = RestartPolicy()
    pauses = [policy.after_crash(at, 0.0) for at in (0.0, 40.0, 80.0, 120.0)]
    assert [pause.delay_s for pause in pauses] == [0.2, 1.0, 5.0, 30.0]
    assert not any(pause.circuit_open for pause in pauses)


def test_a_worker_that_lived_long_starts_the_count_anew():
    policy = RestartPolicy()
    policy.after_crash(0.0, 0.0)
    policy.after_crash(100.0, 0.0)
    assert policy.after_crash(200.0, 61.0).delay_s == 0.2


def test_a_request_is_convicted_by_the_second_crash_and_acquitted_by_an_answer():
    suspects = Suspects()
    suspects.mark(b"a", 0.0)
    assert not suspects.convicted(b"a", 1.0)
    suspects.mark(b"a", 2.0)
    assert suspects.convicted(b"a", 3.0)
    assert not suspects.convicted(b"a", 3000.0)
    suspects.clear(b"a")
    assert not suspects.convicted(b"a", 3.0)
    assert not suspects.any


def test_suspects_are_bounded():
    suspects = Suspects()
    for number in range(5000):
        suspects.mark(str(number).encode(), 0.0)
    assert len(suspects._seen) <= 1024
