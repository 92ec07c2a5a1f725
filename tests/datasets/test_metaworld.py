"""Meta-World for ViSaRL: seeded, fresh after reset, upright on demand, resumable."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP

from datasets import canvas, envs
from datasets.envs import metaworld
from datasets.envs.metaworld import Config, MetaWorldTask

OURS = ("reach", "drawer-open", "faucet-open", "door-open")  # ViSaRL's four
STILL = np.zeros(4, np.float32)


def task(game: str, seed: int = 0, **words: Any) -> MetaWorldTask:
    return metaworld.single(Config(game, **words), seed, 0)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_every_task_can_be_made() -> None:
    assert len(envs.games("metaworld")) == 50 and set(OURS) <= set(envs.games("metaworld"))
    assert envs.image_shape("metaworld/drawer-open") == (3, 64, 64)
    assert envs.frame_info("metaworld/reach") == ("state", "points", "success")


@pytest.mark.parametrize("game", envs.games("metaworld"))
def test_a_task_starts_in_its_own_layout(game: str) -> None:
    """Bodies and sites are at this episode's positions; metaworld's own reset does not
    update them.
    """
    env = task(game)
    for episode in range(2):
        image, info = env.reset()
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 20
        assert info["state"].shape == (39,) and info["points"].shape == (3, 2)
        data = env._task.data
        before = data.xpos.copy()
        mujoco.mj_forward(env._task.model, data)
        np.testing.assert_array_equal(data.xpos, before)
        state = info["state"]
        np.testing.assert_array_equal(state[:18], state[18:36])  # nothing moved yet
        following, reward, terminated, truncated, then = env.step(STILL)
        assert np.abs(then["points"][2] - info["points"][2]).max() < 1.5  # the goal, in pixels
        assert np.abs(then["state"][4:7] - state[4:7]).max() < 0.03, episode  # the object, metres
        assert 0 <= reward <= 10.001 and not terminated and not truncated
        assert np.abs(following.astype(int) - image).mean() < 6
        for _ in range(3):
            env.step(env.action_space.sample())


def test_metaworld_s_own_reset_is_stale() -> None:
    """The reason why ours computes kinematics again: remove that when this test fails."""
    env = task("drawer-open")
    env.reset()
    env._task.reset()
    before = env._task.data.body("drawer_link").xpos.copy()
    mujoco.mj_forward(env._task.model, env._task.data)
    assert np.abs(env._task.data.body("drawer_link").xpos - before).max() > 0.01


@pytest.mark.parametrize("game", OURS)
def test_episodes_depend_on_seeds_alone(game: str) -> None:
    def play(env: MetaWorldTask) -> list[dict[str, Any]]:
        actions = np.random.default_rng(0).uniform(-1, 1, (2, 20, 4)).astype(np.float32)
        record = []
        for episode in actions:
            image, info = env.reset()
            record.append(info | {"image": image})
            for action in episode:
                image, reward, _, _, info = env.step(action)
                record.append(info | {"image": image, "reward": reward})
        return record

    first, again, other = play(task(game)), play(task(game)), play(task(game, seed=1))
    assert all(map(same, first, again))
    assert not any(map(same, first, other))
    assert not np.array_equal(first[0]["state"], first[21]["state"])  # nor two episodes
    used = task(game, seed=5)
    play(used)
    used.reset(seed=0)  # and nothing of earlier episodes is left in it
    fresh = task(game, seed=5)
    fresh.reset(seed=0)
    for action in np.random.default_rng(1).uniform(-1, 1, (20, 4)).astype(np.float32):
        (a, *_, left), (b, *_, right) = used.step(action), fresh.step(action)
        assert np.array_equal(a, b) and same(left, right)


def test_layouts_fill_their_whole_range() -> None:
    env = task("drawer-open")
    places = np.array([env.reset()[1]["state"][4] for _ in range(120)])
    assert len(np.unique(places)) == 120  # metaworld itself has 50
    assert -0.1 <= places.min() < -0.09 and 0.09 < places.max() <= 0.1


@pytest.mark.parametrize("game", OURS)
def test_a_run_resumes_exactly(game: str) -> None:
    env = task(game)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        env.step(rng.uniform(-1, 1, 4).astype(np.float32))
    resumed = task(game, seed=9)
    resumed.set_state(env.get_state())
    (image, info), (own, own_info) = resumed.observe(), env.observe()
    assert np.array_equal(image, own) and same(info, own_info)
    for _ in range(480):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        (a, *left, one), (b, *right, other) = env.step(action), resumed.step(action)
        assert np.array_equal(a, b) and left == right and same(one, other)
        if left[2]:
            assert np.array_equal(env.reset()[0], resumed.reset()[0])


@pytest.mark.parametrize("game", OURS)
def test_an_expert_succeeds_and_the_episode_is_truncated(game: str) -> None:
    experts: dict[str, Any] = ENV_POLICY_MAP
    env, expert = task(game), experts[f"{game}-v3"]()
    _, info = env.reset()
    total, steps, truncated, succeeded = 0.0, 0, False, []
    while not truncated:
        action = np.clip(expert.get_action(info["state"]), -1, 1).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        assert not terminated and ("game_return" in info) == truncated == info["game_over"]
        total, steps = total + reward, steps + 1
        succeeded.append(info["success"])
    assert steps == info["game_length"] == 500 and total == pytest.approx(info["game_return"])
    assert info["game_success"] and any(succeeded)


def test_a_temporary_success_counts() -> None:
    env = task("door-open")
    env.reset()
    env._task.evaluate_state = lambda *_: (1.0, {"success": float(len(env._actions) == 3)})
    *_, info = [env.step(STILL)[-1] for _ in range(500)]
    assert not info["success"] and info["game_success"] and info["game_return"] == 500


@pytest.mark.parametrize("camera", metaworld.CAMERAS)
def test_upright_is_the_same_image_turned(camera: str) -> None:
    (buffer, reference), (upright, info) = (
        task("drawer-open", camera=camera, view=view).reset() for view in ("reference", "upright")
    )
    corner = camera.startswith("corner")
    assert np.array_equal(upright, buffer[:, ::-1] if corner else buffer[::-1])
    turned = (64 - reference["points"][:, 0]) if corner else (64 - reference["points"][:, 1])
    np.testing.assert_allclose(info["points"][:, 0 if corner else 1], turned, atol=1e-3)


UP = np.array([0, 0, 1, 0], np.float32)
SEEN_FROM_THE_SIDE = [name for name in metaworld.CAMERAS if name.startswith("corner")]


@pytest.mark.parametrize("camera", SEEN_FROM_THE_SIDE)
def test_upright_has_up_at_the_top(camera: str) -> None:
    """A hand that rises in the world rises in the image, towards row 0."""
    env = task("drawer-open", camera=camera, view="upright")
    _, before = env.reset()
    for _ in range(20):
        after = env.step(UP)[-1]
    assert after["state"][2] > before["state"][2] + 0.05  # metres
    assert after["points"][0, 1] < before["points"][0, 1] - 1  # pixels


GEOM, SITE = mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_SITE
EXACT = 0.4  # pixels of an image of 224, in which the smallest goal is one
TIP = SITE, ["leftEndEffector", "rightEndEffector"], EXACT
# Object and goal. Metaworld takes hold of the drawer 3.2 cm before its handle's middle and of the
# faucet 1 cm below; of a door's handle that is not round, what is seen has its middle elsewhere.
OFFSETS = {
    "reach": ((GEOM, ["objGeom"], EXACT), (SITE, ["goal"], EXACT)),
    "drawer-open": ((GEOM, ["objGeom"], 4.2), (SITE, ["goal"], EXACT)),
    "faucet-open": ((SITE, ["handleStartOpen"], 2.0), (SITE, ["goal_open"], EXACT)),
    "door-open": ((GEOM, ["handle"], 1.6), (SITE, ["goal"], EXACT)),
}


@pytest.mark.parametrize("camera", ["corner", "corner2", "corner3"])
@pytest.mark.parametrize("game", OFFSETS)
def test_points_are_where_mujoco_renders_them(
    game: str, camera: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tip, object and goal against MuJoCo's own segmentation, without occlusion."""
    env = task(game, view="upright", camera=camera, height=224, width=224)
    _, info = env.reset()
    monkeypatch.setattr(mujoco.gl_context, "GLContext", canvas.gl_context())
    with mujoco.Renderer(env._task.model, 224, 224) as renderer:
        renderer.enable_segmentation_rendering()
        for point, (kind, names, near) in zip(info["points"], (TIP, *OFFSETS[game]), strict=True):
            middles = [middle(renderer, env, camera, kind, name) for name in names]
            away = np.hypot(*(np.mean(middles, 0) - point))
            assert away < near, (names, away)


def middle(
    renderer: mujoco.Renderer, env: MetaWorldTask, camera: str, kind: int, name: str
) -> tuple[float, float]:
    """The mean position of an object's pixels, upright, with everything else removed."""
    model, scene = env._task.model, renderer.scene
    number = mujoco.mj_name2id(model, kind, name)
    renderer.update_scene(env._task.data, camera)
    for shape in scene.geoms[: scene.ngeom]:
        if (shape.objtype, shape.objid) != (kind, number):
            shape.segid = -1  # not rendered
    mask = renderer.render()[::-1, ::-1, 1] == kind  # these cameras stand upside down
    rows, columns = np.nonzero(mask)
    return columns.mean() + 0.5, rows.mean() + 0.5  # a pixel's middle is half a pixel into it


def test_points_behind_the_camera_are_outside_of_the_image() -> None:
    """Divided by its depth, such a point would be mirrored into the image."""
    env = task("reach", images=False)
    env.reset()
    data, camera = env._task.data, env._camera
    ahead = -data.cam_xmat[camera].reshape(3, 3)[:, 2]
    before, behind = (data.cam_xpos[camera] + side * ahead for side in (1, -1))
    projected = env._project(np.stack([before, behind]))
    np.testing.assert_allclose(projected[0], [32, 32], atol=1e-3)
    assert np.isnan(projected[1]).all()
    env.close()


def test_tasks_in_one_process_do_not_disturb_each_other() -> None:
    words = [("drawer-open", 0), ("door-open", 0), ("drawer-open", 1)]
    alone = [task(*word).reset()[0] for word in words]
    together = [task(*word) for word in words]
    for _ in range(2):
        for env in together:
            env._task.np_random = np.random.default_rng(7)
            env.reset()
    for env, (_, seed), image in zip(together, words, alone, strict=True):
        env._task.np_random = np.random.default_rng((seed, 0))
        assert np.array_equal(env.reset()[0], image)


def test_environments_in_parallel_are_as_alone() -> None:
    vector = envs.make("metaworld/reach", num_envs=2, seed=3)
    singles = [envs.single("metaworld/reach", seed=3, index=index) for index in range(2)]
    images, infos = vector.reset()
    expected = [env.reset() for env in singles]
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4)).astype(np.float32)
    for action in actions:
        assert np.array_equal(images, [image for image, _ in expected])
        assert np.array_equal(infos["state"], [info["state"] for _, info in expected])
        images, _, _, _, infos = vector.step(action)
        expected = [env.step(a)[::4] for env, a in zip(singles, action, strict=True)]
    vector.close()


def test_shadows_are_rendered_on_demand() -> None:
    fast, full = (task("reach", render=render).reset()[0] for render in ("fast", "full"))
    assert 0.5 < np.abs(fast.astype(int) - full).mean() < 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"game": "drawer"}, "game: 'drawer'"),
        ({"camera": "top"}, "camera: 'top', must be corner or corner2"),
        ({"view": "mirror"}, "view: 'mirror', must be reference or upright"),
        ({"render": "slow"}, "render: 'slow', must be fast or full"),
        ({"height": 0}, "height: 0, must be at least 1"),
        ({"horizon": 501}, "horizon: 501, must be at most 500"),
    ],
)
def test_impossible_tasks_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**({"game": "reach"} | words))
