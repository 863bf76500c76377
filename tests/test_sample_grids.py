"""The labelled grid: pictures one to one at their places, labels that fit, and a footer that says it is synthetic."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from copgen_cli.inputs.conditions import Record, View
from copgen_cli.inputs.pictures import Frame
from copgen_cli.modalities import PUBLISHED, Modality, Role
from copgen_cli.outputs.grids import LINES_PER_PAGE, WIDEST, Block, Line, draw_grid
from copgen_cli.outputs.pages import GeneratedRecord, draw_page, records_per_page
from copgen_cli.outputs.provenance import InputFile
from copgen_cli.outputs.spread import mean_picture, std_picture
from copgen_cli.records import SampleRequest

SIDE = 96
FRAME = Frame(SIDE, SIDE)


def plain(level: int, side: int = SIDE) -> np.ndarray:
    """A picture of one colour that nothing else on a page has."""
    return np.full((side, side, 3), (level, 255 - level, 7), np.uint8)


def places_of(page: Image.Image, picture: np.ndarray) -> list[tuple[int, int]]:
    """Left upper corners where a plain picture stands whole, one to one."""
    pixels = np.asarray(page)
    same = (pixels == picture[0, 0]).all(axis=-1)
    side = picture.shape[0]
    rows, columns = np.nonzero(same)
    assert len(rows) % side**2 == 0, "it is stretched, cut or covered"
    corners = [
        (int(x), int(y)) for y, x in zip(rows, columns, strict=True) if not same[y - 1, x] and not same[y, x - 1]
    ]
    assert all(same[y : y + side, x : x + side].all() for x, y in corners)
    return corners


def draw(blocks: list[Block], lines: list[Line]) -> Image.Image:
    return draw_grid(blocks, lines, side=SIDE, footer="Synthetic")


def test_every_picture_stands_whole_and_one_to_one_in_its_row_and_column():
    blocks = [Block("Radar", ("condition",)), Block("Elevation", ("sample 1", "sample 2"))]
    cells = [[plain(10), plain(20), plain(30)], [plain(40), plain(50), plain(60)]]

    page = draw(blocks, [Line(f"place {i}", tuple(row)) for i, row in enumerate(cells)])

    corners = [[places_of(page, cell) for cell in row] for row in cells]
    assert all(len(found) == 1 for row in corners for found in row)
    (first, second, third), below = corners
    assert first[0][0] < second[0][0] < third[0][0]
    assert [found[0][0] for found in below] == [first[0][0], second[0][0], third[0][0]]
    assert below[0][0][1] >= first[0][1] + SIDE


def test_blocks_stand_further_apart_than_the_columns_of_one():
    page = draw([Block("A", ("", "")), Block("B", ("",))], [Line("x", (plain(10), plain(20), plain(30)))])

    (a,), (b,), (c,) = (places_of(page, plain(level)) for level in (10, 20, 30))
    assert c[0] - b[0] > b[0] - a[0] >= SIDE


def test_titles_captions_names_and_footer_leave_ink_where_they_belong():
    bare = draw([Block("", (" ",))], [Line("", (plain(10),))])
    page = draw([Block("Title", ("caption",))], [Line("name", (plain(10),))])
    changed = (np.asarray(bare) != np.asarray(page)).any(axis=-1)
    (left, top), _ = places_of(page, plain(10))[0], None

    assert changed[:top].any()
    assert changed[top : top + SIDE, :left].any()
    assert not changed[top : top + SIDE, left:].any()
    assert (np.asarray(page)[top + SIDE :] < 128).any()  # the footer


def test_a_name_of_any_length_stays_beside_its_picture():
    page = draw([Block("A very long title that does not fit above one picture", ("",))], [Line("n" * 300, (plain(9),))])

    assert len(places_of(page, plain(9))) == 1


def test_a_line_of_the_wrong_length_or_a_picture_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="2 cells in a line of 1 columns"):
        draw([Block("", ("",))], [Line("", (plain(1), plain(2)))])
    with pytest.raises(ValueError, match="shape"):
        draw([Block("", ("",))], [Line("", (plain(1, side=90),))])


def request(n_samples: int, *, conditions: int = 1, generated: int = 2) -> SampleRequest:
    order = list(PUBLISHED)
    roles = dict.fromkeys(order[:conditions], Role.CONDITION)
    roles |= dict.fromkeys(order[conditions : conditions + generated], Role.GENERATE)
    return SampleRequest(roles=roles, n_samples=n_samples)


def generated(name: str, asked: SampleRequest, *, truth: bool = True) -> GeneratedRecord:
    """Samples, conditions and truth whose colours tell them apart."""
    samples = {
        f"{name}_v{k + 1}": {m: plain(10 * (k + 1) + m.order) for m in asked.generated} for k in range(asked.n_samples)
    }
    views = {m: View(plain(200), None, InputFile("", "")) for m in PUBLISHED}
    record = Record(name, {m: views[m] for m in asked.conditions}, {m: views[m] for m in asked.generated if truth})
    given = {m: plain(240 + m.order) for m in asked.conditions}
    return GeneratedRecord(record, samples, given, {m: plain(230 + m.order) for m in asked.generated if truth})


def test_a_page_shows_conditions_samples_and_truth_side_by_side_where_there_is_room():
    asked = request(2)

    page = draw_page([generated("a", asked), generated("b", asked)], asked, FRAME, spread=False, footer="")

    for level in (240, 11, 12, 21, 22, 231, 232):
        corners = places_of(page, plain(level))
        assert len(corners) == 2, level
        assert corners[0][0] == corners[1][0]
    (condition, *_), (first, *_), (truth, *_) = (places_of(page, plain(level)) for level in (240, 11, 231))
    assert condition[1] == first[1] == truth[1]
    assert condition[0] < first[0] < truth[0]


def test_modalities_go_below_one_another_where_there_is_not():
    asked = request(8)

    page = draw_page([generated("a", asked)], asked, FRAME, spread=False, footer="")

    (upper,), (lower,) = places_of(page, plain(11)), places_of(page, plain(12))
    assert upper[0] == lower[0]
    assert upper[1] < lower[1]
    assert len(places_of(page, plain(240))) == 1


def test_more_samples_than_a_line_holds_go_on_in_the_next():
    asked = request(WIDEST + 1, generated=1)
    shown = generated("a", asked)

    page = draw_page([shown], asked, FRAME, spread=False, footer="")

    corners = [places_of(page, plain(10 * (k + 1) + 1)) for k in range(WIDEST + 1)]
    assert [len(found) for found in corners] == [1] * (WIDEST + 1)
    assert corners[-1][0] == (corners[0][0][0], corners[0][0][1] + SIDE + 6)


def test_spread_adds_mean_and_deviation():
    asked = request(2, generated=1)
    shown = generated("a", asked, truth=False)

    page = draw_page([shown], asked, FRAME, spread=True, footer="")

    assert len(places_of(page, mean_picture(shown.of(Modality.S1RTC)))) == 1
    assert len(places_of(page, std_picture(shown.of(Modality.S1RTC)))) == 1


def test_a_page_holds_as_many_records_as_fit_its_lines():
    assert records_per_page(request(1), spread=False) == LINES_PER_PAGE
    assert records_per_page(request(8), spread=False) == LINES_PER_PAGE // 2
    assert records_per_page(request(500), spread=False) == 1


def test_a_padded_picture_is_shown_without_its_padding():
    frame = Frame(SIDE, SIDE - 20)
    asked = request(1, generated=1)

    page = draw_page([generated("a", asked)], asked, frame, spread=False, footer="")

    assert len(places_of(page, plain(11, side=SIDE - 20))) == 1
