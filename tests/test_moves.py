"""The algebra of moves, by itself: pure numbers, data, and plain loops over what a layer reads."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import some_by_default
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.errors import InputError
from zoo.network.moves import Border, Everywhere, Pointwise, Repeat, Slide, Unknown, move_from
from zoo.network.network import Network
from zoo.network.positions import Lattice, Span, pair
from zoo.network.program import Program

SLIDES = st.builds(
    Slide,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    same=st.booleans(),
    causal=st.just(False),
)
MOVES = st.one_of(
    SLIDES,
    st.builds(Border, st.integers(-2, 3), st.integers(-2, 3)),
    st.builds(Repeat, st.integers(1, 3)),
    st.just(Pointwise()),
    st.just(Everywhere()),
)


def reads(move, size):
    """For each row after a move, the rows before it that it is computed from, by a plain loop."""
    match move:
        case Slide():
            before, after = move.padding(size)
            starts = range(0, size + before + after - move.extent + 1, move.stride)
            taps = [[start - before + tap * move.dilation for tap in range(move.kernel)] for start in starts]
            return [[row for row in each if 0 <= row < size] for each in taps]
        case Border():
            return [[row] if 0 <= row < size else [] for row in range(-move.before, size + move.after)]
        case Repeat():
            return [[row] for row in range(size) for _ in range(move.times)]
        case Everywhere():
            return [list(range(size))]
    return [[row] for row in range(size)]


@given(MOVES, st.integers(6, 30))
def test_sizes_and_bounds_are_those_of_a_plain_loop(move, size):
    rows = reads(move, size)
    assert move.size([size]) == len(rows)
    if not rows:
        return
    first, last = move.bounds((np.arange(size), np.arange(size) + 1))
    for row, read in enumerate(rows):
        assert (first[row], last[row]) == (min(read), max(read) + 1) if read else first[row] >= last[row]


@given(MOVES, st.integers(6, 30), st.integers(1, 4), st.integers(1, 9))
def test_spans_hold_what_cells_look_at(move, size, stride, extent):
    """Cell i of the map before looks at pixels i * stride and `extent` of them."""
    before = Span(0, extent, stride * (move.times if isinstance(move, Repeat) else 1), size)
    span = move.span([before])
    for row, read in enumerate(reads(move, size)):
        if read and not isinstance(move, Everywhere | Repeat):
            assert span.start + row * span.stride <= min(read) * before.stride
            assert span.start + row * span.stride + span.extent >= max(read) * before.stride + extent


@given(MOVES)
def test_a_move_written_as_data_is_the_same_move(move):
    assert move_from(json.loads(json.dumps(move.to_data()))) == move


@pytest.mark.parametrize("data", [{"move": "jump"}, {"kernel": 3}, {"move": "slide", "kernels": 3}, {}])
def test_data_that_is_no_move_is_refused(data):
    with pytest.raises(InputError, match="move: received .*accepted: one of slide, border"):
        move_from(data)


@pytest.mark.parametrize("name", some_by_default(["nin_cifar10", "inception_cifar10", "resnet29_cifar10"]))
def test_a_program_written_as_data_places_every_cell_alike(name):
    program = Network.of(zoo.convolutionalize(zoo.build(name))).program
    again = Program.from_data(json.loads(json.dumps(program.to_data())))
    assert again == program and again.spans((97, 101)) == program.spans((97, 101))


def test_an_unknown_move_gives_no_numbers():
    for ask in (lambda: Unknown().size([3]), lambda: Unknown().span([Span(0, 1, 1, 3)]), lambda: Unknown().bounds(())):
        with pytest.raises(InputError, match="not known"):
            ask()
    assert Unknown().known_span([Span(0, 1, 1, 3)]) is None


@given(SLIDES.filter(lambda move: not move.same), st.integers(1, 6), st.integers(20, 60))
def test_a_lattice_has_every_position_that_a_finer_grid_looks_at(move, stride, size):
    """Of a map at every pixel: a grid of `stride` needs the windows that begin at its multiples, and no others."""
    lattice = move.lattice([Lattice(size)], stride)
    begins = range(0, size - move.extent + 1, lattice.pitch)
    assert lattice.size == len(begins) and lattice.stride == move.stride
    assert set(range(0, size - move.extent + 1, stride)) & set(range(0, size, move.stride)) <= set(begins)


def test_the_algebra_needs_no_keras():
    modules = "zoo.network.moves, zoo.network.program, zoo.network.fields, zoo.network.geometry, zoo.card"
    code = f"import sys, {modules}; assert not {{'keras', 'tensorflow'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pair_is_of_two_and_an_open_size_is_none():
    assert pair(side + 1 for side in (3, 4)) == (4, 5)
    for sides in ((3,), (3, 4, 5)):
        with pytest.raises(ValueError):
            pair(sides)
    assert Span(0, 1, 1, 7).known_size == 7
    with pytest.raises(ValueError, match="open"):
        print(Span(0, 1, 1, None).known_size)
