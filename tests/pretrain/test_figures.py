"""Figures: the right pixels at the right places, the same every time."""

from __future__ import annotations

import numpy as np

from pretrain import figures


def test_heat_map_rises_from_dark_to_light() -> None:
    picture = figures.heat_map(np.linspace(0, 1, 50)[None])
    assert picture.shape == (1, 50, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [68, 1, 84] and picture[0, -1].tolist() == [253, 231, 37]
    lightness = picture[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()


def test_outline_brightens_and_frames_the_chosen_patches() -> None:
    picture = np.full((16, 16, 3), 200, np.uint8)
    outlined = figures.outline(picture, [1], 8, scale=4)  # row 0, column 1
    assert outlined.shape == (64, 64, 3)
    assert outlined[16, 48].tolist() == [200, 200, 200]
    assert outlined[16, 16].tolist() == outlined[48, 48].tolist() == [90, 90, 90]
    assert outlined[31, 48].tolist() == outlined[16, 32].tolist() == [255, 40, 40]


def test_neighbouring_patches_share_no_border() -> None:
    outlined = figures.outline(np.full((16, 16, 3), 200, np.uint8), [0, 1], 8, scale=4)
    assert outlined[16, 31].tolist() == outlined[16, 32].tolist() == [200, 200, 200]


def test_tint_reddens_the_chosen_patches() -> None:
    tinted = figures.tint(np.full((16, 24, 3), 100, np.uint8), [1, 5], 8)
    red = (tinted == (160, 65, 65)).all(-1)
    assert (tinted[~red] == 100).all()
    assert red[:8, 8:16].all() and red[8:, 16:].all() and red.sum() == 2 * 64


def test_overlay_dims_pixels_of_low_saliency() -> None:
    picture = np.full((2, 2, 3), 90, np.uint8)
    bright = figures.overlay(picture, np.array([[0.0, 0.5], [1.0, 1.0]]))
    assert bright[..., 0].tolist() == [[30, 60], [90, 90]]


def test_line_chart_draws_the_curve_and_the_cut() -> None:
    like = np.zeros((24, 24, 3), np.uint8)
    chart = figures.line_chart(np.array([0.0, 0.0, 0.0, 0.5, 1.0]), 2, like)
    blue, red = (chart == (30, 80, 200)).all(-1), (chart == (220, 30, 30)).all(-1)
    assert blue[-1, 20] and blue[:, 90].argmax() < 10
    columns = np.flatnonzero(red.any(0))
    assert columns.min() >= 46 and columns.max() <= 49  # two of four steps


def test_grid_has_every_image_and_is_reproducible() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]  # a caption's letters are grey
    pictures = [np.full((8, 8, 3), colour, np.uint8) for colour in colours]
    rows = [{"a": pictures[0], "b": pictures[1]}, {"c": pictures[2]}]
    sheet, again = (np.asarray(figures.grid(rows, cell=16)) for _ in range(2))
    assert np.array_equal(sheet, again)
    for colour in colours:
        assert (sheet == colour).all(-1).sum() == 16 * 16


def test_a_group_of_the_grid_continues_in_the_next_row() -> None:
    pictures = {c: np.full((8, 8, 3), (0, 40 * i, 255), np.uint8) for i, c in enumerate("abcde")}
    groups = [dict(list(pictures.items())[:3]), dict(list(pictures.items())[3:])]
    sheet = np.asarray(figures.grid(groups, columns=2, cell=16))
    corners = [tuple(np.argwhere((sheet == (0, 40 * i, 255)).all(-1)).min(0)) for i in range(5)]
    assert corners == [(28, 8), (28, 32), (72, 8), (116, 8), (116, 32)]


def test_bar_chart_is_as_high_as_the_counts() -> None:
    chart = figures.bar_chart([0, 2, 4], {"here": 1}, name="eggs", size=(124, 172))
    blue, red = (chart == (30, 80, 200)).all(-1), (chart == (220, 30, 30)).all(-1)
    # Three columns of a hundred pixels, and a hundred pixels of height; the line is in the second.
    assert [blue[:, 12 + 5 + int(33.4 * i)].sum() for i in range(3)] == [0, 50, 100]
    assert chart[152:].min() < 100  # the name
    assert 60 <= np.flatnonzero(red[100]).mean() <= 64
