"""What gateways tell one another about Endpoints."""

from gateway.health import Health, Permit, Result
from gateway.sharing.gossip import Gossip
from gateway.sharing.memory import HintBoard

UNIX_S = 1_795_348_800.0


class Teller:
    def __init__(self, board, name):
        self.board, self.name = board, name

    def tell(self, hint):
        self.board.tell(self.name, hint)

    def heard(self, unix_s):
        return self.board.heard(self.name, unix_s)


def gateway(board, name, clock):
    health = Health(lambda: 0.5)
    return health, Gossip(health, Teller(board, name), lambda: ["p/m", "q/m"], lambda: UNIX_S + clock["s"])


def attempt(health, now_s, **result):
    permit = health.of("p/m").enter(now_s)
    health.of("p/m").leave(permit, Result(**result), now_s)
    return permit


def test_an_endpoint_that_failed_elsewhere_is_asked_last_until_its_time_has_passed_or_it_answers_here():
    board, clock = HintBoard(), {"s": 0.0}
    (here, say), (there, hear) = gateway(board, "a", clock), gateway(board, "b", clock)
    attempt(there, 1.0)
    for _ in range(3):
        attempt(here, 10.0, failure="server")
    assert here.observe("p/m", 10.0).standing == "open"
    clock["s"] = 10.0
    for gossip in (say, hear, say):
        gossip.exchange(10.0)
    assert here.observe("p/m", 10.0).standing == "open"
    assert there.observe("p/m", 10.0).standing == "degraded"
    assert there.observe("q/m", 10.0).standing == "healthy"
    assert there.of("p/m").enter(10.0) is Permit.NORMAL  # it may be asked all the same
    assert there.observe("p/m", here.observe("p/m", 10.0).until_s).standing == "healthy"
    there.of("p/m").leave(Permit.NORMAL, Result(), 11.0)
    assert there.observe("p/m", 11.0).standing == "healthy"


def test_what_was_said_is_not_repeated_and_what_is_unknown_is_not_heard():
    board, clock = HintBoard(), {"s": 5.0}
    said = []
    board.tell = lambda teller, hint: said.append((teller, hint.kind))
    health, gossip = gateway(board, "a", clock)
    attempt(health, 5.0, failure="rate_limit", retry_after_s=20.0)
    for _ in range(3):
        gossip.exchange(5.0)
    assert said == [("a", "parked")]
