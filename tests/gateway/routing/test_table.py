from gateway.routing.table import LOCAL, UNBOUNDED, UNVERIFIED, prepare
from tests.fakes.catalogues import catalogue, codes, decided, endpoint, names, route, table

A, B, C = endpoint("a/x"), endpoint("b/x"), endpoint("c/x")


def rows(prepared):
    return [[row.id for row in stage.rows] for stage in prepared.stages]


def test_each_model_is_followed_by_its_own_fallbacks_one_level_deep_and_nobody_comes_twice():
    d, e = endpoint("d/x"), endpoint("e/x")
    routes = [
        route([A, B], "one", fallback=("two", "e/x")),
        route([B, C], "two", fallback=("three",)),
        route([C, d], "three"),
    ]
    every = catalogue([A, B, C, d, e], routes)
    assert rows(prepare([routes[0]], every, {})) == [["a/x", "b/x"], ["c/x"], ["e/x"]]
    both = prepare([routes[2], routes[0]], every, {})
    assert rows(both) == [["c/x", "d/x"], ["a/x", "b/x"], [], ["e/x"]]
    assert [row.stage for row in both.merged.rows] == [0, 0, 1, 1, 3]
    assert [row.fallback for row in both.merged.rows] == [False, False, False, False, True]
    assert (both.route, both.explicit) == ("three", True)


def test_an_alias_is_a_fallback_too():
    two = route([B], "two", aliases=("second",))
    assert rows(table([A], others=(B, two), fallback=("second",))) == [["a/x"], ["b/x"]]


def test_who_cannot_be_asked_whatever_the_request_says_is_left_out_once_with_its_reason():
    gone = endpoint("g/x", state="retired")
    prepared = table([A, gone, B], off={"b/x": "set KEY", "g/x": "set KEY"}, fallback=("b/x",))
    assert rows(prepared) == [["a/x"], []]
    assert [(one.endpoint, one.code, one.reason) for one in prepared.excluded] == [
        ("g/x", "retired", "the provider has retired it"),
        ("b/x", "off", "set KEY"),
    ]
    assert names(decided(prepared).candidates) == ["a/x"]
    assert codes(decided(prepared)) == {"g/x": "retired", "b/x": "off"}


def test_an_endpoint_by_its_id_stands_alone():
    retired = endpoint("g/x", state="retired")
    alone = [route([one], one.id, implicit=True) for one in (A, retired)]
    every = catalogue([A, B, retired], [route([A, B]), *alone])
    assert names(decided(prepare([alone[0]], every, {})).candidates) == ["a/x"]
    plan = decided(prepare([alone[1]], every, {}))
    assert (names(plan.candidates), codes(plan)) == ([], {"g/x": "retired"})


def test_what_nobody_knows_the_size_of_is_never_too_small():
    (row,) = table([endpoint("a/x", context_tokens=None, max_output_tokens=None)]).stages[0].rows
    assert (row.context_tokens, row.output_max_tokens) == (UNBOUNDED, UNBOUNDED)


def test_local_ones_stand_where_the_route_puts_them():
    local, unverified = endpoint("l/x", local=True), endpoint("u/x", state="unverified")

    def handicaps(**keys):
        stage = table([A, local, unverified], **keys).stages[0]
        return stage.handicaps, stage.ordered_handicaps

    assert handicaps(local="last") == ((0, LOCAL, UNVERIFIED), (0, LOCAL, 0))
    assert handicaps(local="first") == ((LOCAL, 0, LOCAL + UNVERIFIED), (LOCAL, 0, LOCAL))
    assert handicaps(local="by_policy") == ((0, 0, UNVERIFIED), (0, 0, 0))
    # A client may sort what its operator put in order: that order says nothing of local ones under another policy.
    assert handicaps(policy="ordered", local="by_policy") == ((0, LOCAL, UNVERIFIED), (0, 0, 0))


def test_slugs_are_a_provider_its_region_and_the_endpoint_in_lower_case():
    (row,) = table([endpoint("Cloud/Model-X", region="eu-west-3")]).stages[0].rows
    assert row.slugs == {"cloud", "cloud/eu-west-3", "cloud/model-x"}


def test_what_a_route_switches_goes_into_the_plan():
    plan = decided(table([A], emulate=False, rescue=False, upcast=True, hedge=True))
    assert (plan.emulate, plan.rescue, plan.upcast, plan.hedge) == (False, False, True, True)
    plan = decided(table([A]))
    assert (plan.emulate, plan.rescue, plan.upcast, plan.hedge, plan.explicit) == (True, True, False, False, False)
    assert decided(table([A], policy="ordered")).explicit
