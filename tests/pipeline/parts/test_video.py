"""The video of an episode: positions of marks, playback, and reproducible bytes."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets.errors import FoveaError
from pipeline.parts.video import (
    GREEN,
    ORANGE,
    RED,
    STRIP,
    YELLOW,
    attended,
    render,
    sees_all,
    sheet,
    write_video,
)
from rl.play import EpisodeFrame
from tests.pipeline.fake_artifacts import game

GREY = np.full((96, 96, 3), 100, np.uint8)


def test_attended_patches_have_the_mass_with_the_fewest_weights() -> None:
    weights = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    assert attended(weights).tolist() == [1, 3]
    assert attended(weights, mass=0.7).tolist() == [1, 3]
    assert attended(weights, mass=0.71).tolist() == [1, 3, 2]
    assert attended(np.array([0.2, 0.4, 0.4], np.float32), mass=0.4).tolist() == [1]


def test_no_patch_is_attended_without_weights() -> None:
    assert attended(np.zeros(3, np.float32)).size == 0
    assert attended(np.empty(0, np.float32)).size == 0


@given(arrays(np.float32, st.integers(1, 20), elements=st.integers(0, 50)))
def test_attended_is_minimal(weights: np.ndarray) -> None:
    chosen = attended(weights)
    if weights.sum() == 0:
        assert not chosen.size
        return
    assert weights[chosen].sum() >= 0.6 * weights.sum() * (1 - 1e-5)
    assert weights[chosen[:-1]].sum() < 0.6 * weights.sum()


def test_the_encoder_s_saliency_map_is_overlaid() -> None:
    saliency = np.zeros((96, 96), np.float32)
    saliency[10, 20], saliency[11, 20] = 1, 0.5
    picture = render(EpisodeFrame(GREY, 0.0, 0, saliency=saliency), patch=None, scale=1)[STRIP:]
    full, half, none = picture[10, 20], picture[11, 20], picture[12, 20]
    assert full.tolist() == [round(25 + 0.75 * colour) for colour in GREEN]
    np.testing.assert_allclose(half, (full.astype(float) + none) / 2, atol=1)
    assert none.tolist() == [100, 100, 100] and (picture == 100).all(-1).sum() == 96 * 96 - 2


def test_patches_are_marked_at_their_places_in_their_colours() -> None:
    selected, attention = np.array([0, 13]), np.array([0.1, 0.9], np.float32)
    picture = render(EpisodeFrame(GREY, 120.0, 7, selected, attention), patch=8, scale=4)
    assert picture.shape == (STRIP + 384, 384, 3)
    game_only = picture[STRIP:]
    # Patch 0 is the first of the first row; 13 is (1, 1) on a 12 x 12 grid.
    assert game_only[0, 0].tolist() == list(RED[:3])
    assert game_only[31, 31].tolist() == list(RED[:3])
    assert game_only[16, 16].tolist() == [100, 100, 100]
    assert game_only[32, 32].tolist() == list(ORANGE[:3])
    assert game_only[63, 63].tolist() == list(ORANGE[:3])
    share = YELLOW[3] / 255
    mixed = (1 - share) * 100 + share * np.array(YELLOW[:3])
    assert np.abs(game_only[48, 48] - mixed).max() <= 1
    untouched = np.ones((384, 384), bool)
    untouched[:32, :32] = untouched[32:64, 32:64] = False
    assert (game_only[untouched] == 100).all()


def test_if_all_are_selected_the_salient_ones_are_outlined() -> None:
    """Fig. 6's row of MAE-All: attention may be on patches that are not salient."""
    frame = EpisodeFrame(GREY, 0.0, 0, np.arange(36), np.eye(36, dtype=np.float32)[[0, 7]].sum(0))
    assert sees_all(frame, 16) and not sees_all(EpisodeFrame(GREY, 0.0, 0, np.arange(35)), 16)
    mixed = render(frame, patch=16)[STRIP, 0].tolist()
    for picture in (
        render(frame, patch=16, salient=[7, 8]),
        np.asarray(sheet([frame], patch=16, scale=4, salient=lambda image: [7, 8])),
    ):
        body = picture[STRIP:]
        assert body[0, 0].tolist() == body[32, 32].tolist() == mixed  # attended, nothing else
        assert body[64, 64].tolist() == list(ORANGE[:3])
        assert body[64, 128].tolist() == list(RED[:3])
        assert body[96, 160].tolist() == [100, 100, 100]
    assert mixed[0] > 100 > mixed[2]
    plain = render(frame, patch=16)[STRIP:]
    assert not (plain == RED[:3]).all(-1).any() and not (plain == ORANGE[:3]).all(-1).any()


def test_a_sheet_outlines_a_selection_of_some_patches() -> None:
    frames = game(3)
    alone = np.asarray(sheet(frames, patch=16))
    assert (alone == np.asarray(sheet(frames, patch=16, salient=lambda image: [0]))).all()


def test_without_attention_all_selected_patches_are_red() -> None:
    picture = render(EpisodeFrame(GREY, 0.0, 0, np.array([0, 1])), patch=16)
    assert picture[STRIP, 0].tolist() == picture[STRIP, 127].tolist() == list(RED[:3])


def test_an_encoder_without_patches_leaves_the_frame_unchanged() -> None:
    picture = render(EpisodeFrame(GREY, 0.0, 0), patch=None)
    assert (picture[STRIP:] == 100).all()


def test_the_caption_has_score_and_step() -> None:
    def strip(score: float, step: int) -> bytes:
        return render(EpisodeFrame(GREY, score, step), patch=None)[:STRIP].tobytes()

    assert len({strip(0, 0), strip(10, 0), strip(0, 1)}) == 3


def test_it_is_h264_that_every_browser_plays_frame_for_frame(tmp_path: Path) -> None:
    frames = game(12)
    write_video(tmp_path / "video.mp4", frames, patch=16)
    with av.open(tmp_path / "video.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 15
        decoded = [image.to_ndarray(format="rgb24") for image in container.decode(stream)]
    assert len(decoded) == 12
    for frame, image in zip(frames, decoded, strict=True):
        error = np.abs(image.astype(int) - render(frame, patch=16).astype(int)).mean()
        assert error < 6  # lossy, but the same picture


def test_equal_episodes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, game(8), patch=16)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    write_video(tmp_path / "other.mp4", game(7), patch=16)
    assert (tmp_path / "other.mp4").read_bytes() != (tmp_path / "one.mp4").read_bytes()


def test_no_frames_and_odd_sides_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with pytest.raises(FoveaError, match=r"video\.mp4.*no frames"):
        write_video(path, [], patch=None)
    odd = EpisodeFrame(np.zeros((33, 33, 3), np.uint8), 0.0, 0)
    with pytest.raises(FoveaError, match="even"):
        write_video(path, [odd], patch=None, scale=1)
    assert not list(tmp_path.iterdir())


def test_a_sheet_has_steps_of_the_whole_episode() -> None:
    frames = game(24)
    picture = np.asarray(sheet(frames, patch=16, scale=2))
    first, last = (render(frame, patch=16, scale=2) for frame in (frames[0], frames[-1]))
    height, width = first.shape[:2]
    assert picture.shape == (2 * height + 8, 4 * (width + 8) - 8, 3)
    assert (picture[:height, :width] == first).all()
    assert (picture[-height:, -width:] == last).all()
    assert sheet(frames[:1], patch=16, scale=2).size == (width, height)
