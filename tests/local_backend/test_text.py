from hypothesis import given
from hypothesis import strategies as st

from local_backend.text import TextAssembler

texts = st.text(alphabet="abcAB üß€😀\n", max_size=60)
stops = st.lists(st.text(alphabet="abcAB ü€", min_size=1, max_size=4), max_size=3)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def play(pieces, stops):
    assembler, shown, entries = TextAssembler(stops), [], []
    for number, piece in enumerate(pieces):
        released = assembler.push(piece, number)
        shown.append(released.text)
        entries += released.entries
        if released.stopped:
            return shown, entries, True
    released = assembler.finish()
    return [*shown, released.text], entries + released.entries, False


def first_stop(text, stops):
    """Where the answer ends when it is read from left to right: at the stop that is complete first."""
    for end in range(1, len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if text[:end].find(stop) >= 0]
        if found:
            return min(found)
    return None


@given(texts, st.lists(st.integers(1, 5), min_size=1))
def test_text_is_the_same_however_its_bytes_are_cut(text, cuts):
    shown, entries, stopped = play(pieces_of(text.encode(), cuts), [])
    assert "".join(shown) == text
    assert not stopped
    assert entries == list(range(len(pieces_of(text.encode(), cuts))))


@given(texts, stops, st.lists(st.integers(1, 5), min_size=1))
def test_nothing_from_a_stop_string_on_is_shown(text, stops, cuts):
    shown, entries, stopped = play(pieces_of(text.encode(), cuts), stops)
    joined = "".join(shown)
    assert text.startswith(joined)
    assert not any(stop in joined for stop in stops)
    assert stopped == any(stop in text for stop in stops)
    if not stopped:
        assert joined == text
    assert entries == sorted(set(entries))


@given(texts, stops, st.lists(st.integers(1, 5), min_size=1))
def test_the_stop_that_is_complete_first_wins_however_the_bytes_are_cut(text, stops, cuts):
    shown, _, stopped = play(pieces_of(text.encode(), cuts), stops)
    cut = first_stop(text, stops)
    assert "".join(shown) == (text if cut is None else text[:cut])
    assert stopped == (cut is not None)


def test_half_a_character_waits_and_becomes_a_replacement_only_at_the_end():
    assembler = TextAssembler()
    assert assembler.push("€".encode()[:2]).text == ""
    assert assembler.push("€".encode()[2:]).text == "€"
    assembler.push("€".encode()[:1])
    assert assembler.finish().text == "\ufffd"


def test_an_entry_comes_with_the_text_of_its_token():
    assembler = TextAssembler(["END"])
    assert assembler.push(b"a", "A").entries == ["A"]
    assert assembler.push(b"E", "B").entries == []
    assert assembler.push(b"N", "C").entries == []
    released = assembler.push(b"x", "D")
    assert (released.text, released.entries) == ("ENx", ["B", "C", "D"])
    assembler.push(b"E", "E")
    released = assembler.push(b"ND", "F")
    assert (released.text, released.entries, released.stopped) == ("", [], True)
