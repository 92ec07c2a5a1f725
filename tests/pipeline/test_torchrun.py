"""The stage `pretrain` under torchrun, on two machines that share nothing but the network."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import CODE, Project, with_python

ENCODER = "encoders/breakout-mae"


@pytest.mark.slow
def test_two_machines_pretrain_one_encoder(built: Project, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    machines = []
    for rank in "01":
        folder = tmp_path / rank
        shutil.copytree(built.folder, folder)
        shutil.rmtree(folder / "artifacts" / ENCODER)
        shutil.rmtree(folder / "artifacts/.work")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        torchrun += ["--node-rank", rank, "--master-addr", "127.0.0.1", "--master-port", port]
        machines.append(
            subprocess.Popen(
                [*torchrun, "-m", "pipeline.pretrain", "breakout-mae"],
                cwd=folder,
                env=with_python() | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [machine.communicate(timeout=200)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.terminate()  # torchrun ends its process
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    folders = [tmp_path / rank / "artifacts" / ENCODER for rank in "01"]
    assert folders[0].is_dir() and not folders[1].exists()
    assert "steps 48" in outputs[0] and "breakout-mae" not in outputs[1]
    alone, shared = (
        load_file(folder / "model.safetensors")
        for folder in (built.artifacts / ENCODER, folders[0])
    )
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, shared[name], atol=1e-4, rtol=1e-2)  # of rounding
