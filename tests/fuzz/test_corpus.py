"""The corpus: inputs that reach code that no other input does, and seeded changes of them, played in every run."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.explore import CORPUS, Search, failure_of, read_corpus
from tests.fuzz.mutations import LONGEST, mutated
from tests.fuzz.parsers import PARSERS, Parser

MUTATIONS = 300
INPUTS = {kind: read_corpus(CORPUS / kind) for kind in PARSERS}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, inputs in INPUTS.items() for name in inputs])
def test_an_input_of_the_corpus_is_judged_well(kind: str, name: str):
    error = failure_of(PARSERS[kind], INPUTS[kind][name])
    if error is not None:
        raise error


@pytest.mark.parametrize("kind", PARSERS)
def test_every_kind_of_input_has_a_corpus(kind: str):
    assert len(INPUTS[kind]) >= 9
    assert all(len(data) <= LONGEST for data in INPUTS[kind].values())


@pytest.mark.parametrize("kind", PARSERS)
def test_seeded_changes_of_the_corpus_are_judged_well(kind: str):
    parser, rng, inputs = PARSERS[kind], Random(f"11 {kind}"), [*INPUTS[kind].values()]
    for _ in range(MUTATIONS):
        data = mutated(rng.choice(inputs), inputs, parser.words, rng)
        try:
            parser.play(data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise


def test_the_same_seed_gives_the_same_changes():
    parser = PARSERS["dns"]

    def change(seed: int) -> list[bytes]:
        rng = Random(seed)
        return [mutated(parser.seeds[0], parser.seeds, parser.words, rng) for _ in range(50)]

    assert change(1) == change(1) != change(2)


def picky(data: bytes) -> None:
    """A parser with a mistake behind two conditions."""
    if data[:1] == b"a":
        if data[1:2] == b"b":
            raise KeyError("a mistake")
        return
    return


def test_a_search_keeps_what_reaches_new_code_and_what_fails(tmp_path: Path):
    search = Search(Parser(picky, (b"xx",), (b"a", b"b")), tmp_path, Random(3), root=__file__)
    for _ in range(3000):
        search.once()
    assert [failure_of(search.parser, path.read_bytes()).__class__ for path in search.failed] == [KeyError]
    assert sorted(tmp_path.glob("*")) == sorted(search.new + search.failed)
    assert {path.read_bytes()[:1] == b"a" for path in search.new} == {True, False}


def test_a_second_search_finds_nothing_new_in_the_same_code(tmp_path: Path):
    parser = Parser(lambda data: picky(data[:1]), (b"xx",), (b"a", b"b"))
    for expected in (True, False):
        search = Search(parser, tmp_path, Random(3), root=__file__)
        for _ in range(500):
            search.once()
        assert bool(search.new) is expected


def test_the_command_saves_failing_inputs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(PARSERS, "hosts", Parser(picky, (b"ab",), (b"a",)))
    told = command.main(["--seconds", "0", "--kind", "hosts", "--seed", "1", "--corpus", str(tmp_path)])
    assert told == 1
    assert [path.name[:7] for path in (tmp_path / "hosts").glob("*")] == ["failed-"]
    assert "KeyError('a mistake')" in capsys.readouterr().out


def test_the_command_ends_well_without_a_failing_input(tmp_path: Path):
    options = ["--seconds", "0", "--kind", "keep-alive", "--seed", "1", "--corpus", str(tmp_path), "--trim"]
    assert command.main(options) == 0
    assert len(list((tmp_path / "keep-alive").glob("*"))) >= 1
