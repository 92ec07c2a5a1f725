"""FOVEA_CLUSTER names no cluster, or Ray is missing: refused before any work."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

import pipeline.runtime
from datasets.errors import FoveaError
from pipeline.runtime import parallel
from pipeline.runtime.parallel import CLUSTER, run_parallel
from tests.pipeline.conftest import Project
from tests.pipeline.runtime.test_parallel import Touch


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "FOVEA_CLUSTER: 127.0.0.1:1 does not answer"),
        ("somewhere", "FOVEA_CLUSTER: somewhere, must be auto or host:port"),
        ("ray://127.0.0.1:10001", "must be auto or host:port"),
        ("127.0.0.1:99999", "does not answer"),
    ],
)
def test_an_address_that_does_not_answer_is_named_before_any_work(
    project: Project, address: str, message: str
) -> None:
    began = time.monotonic()
    code, output = project.run("collect", "breakout", **{CLUSTER: address})
    assert (code, message in output) == (1, True), output
    assert time.monotonic() - began < 10
    assert "Traceback" not in output and not list(project.artifacts.glob(".work/*"))


@pytest.mark.slow
def test_an_address_of_something_else_is_refused(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, output = project.run("collect", "breakout", **{CLUSTER: address})
    assert (code, f"{CLUSTER}: {address}" in output) == (1, True), output


def test_without_ray_only_a_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipeline.runtime.cluster", raising=False)
    monkeypatch.delattr(pipeline.runtime, "cluster", raising=False)
    monkeypatch.setenv(CLUSTER, "auto")
    with pytest.raises(FoveaError, match="FOVEA_CLUSTER: needs ray"):
        run_parallel([Touch(tmp_path / "a")], label="touch", total=1, unit="files")
    monkeypatch.delenv(CLUSTER)
    run_parallel([Touch(tmp_path / "a")], label="touch", total=1, unit="files")
    assert parallel.cluster() is None and (tmp_path / "a").exists()
