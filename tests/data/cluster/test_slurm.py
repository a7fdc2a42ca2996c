"""Slurm files: strictly read, and jobs that a stand-in for Slurm runs here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the slurm extra is not installed")
pytest.importorskip("dask_jobqueue", reason="the slurm extra is not installed")

import dask_jobqueue

from polyrefuse_data.cluster.connect import ClusterOptions, open_cluster
from polyrefuse_data.cluster.slurm import known_arguments, read_slurm
from polyrefuse_data.core.errors import PolyRefuseError

KNOWN = known_arguments(dask_jobqueue)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs: 2\nwaltime: 1h\n", "did you mean 'walltime'"),
        ("jobs: none\n", "says jobs: none; expected how many"),
        ("cores: 1\nmemory: 1GB\n", "says jobs: None"),
        ("jobs: 1\nprocesses: 0\n", "processes: 0"),
        ("- jobs\n", "holds no arguments"),
        ("jobs: [\n", "cannot read the Slurm file"),
    ],
)
def test_a_bad_file_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text(text)
    with pytest.raises(PolyRefuseError, match=r".*") as caught:
        read_slurm(file, KNOWN)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_slurm_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text("jobs: 1\ncores: 1\nmemory: 1GB\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(PolyRefuseError, match="no sbatch on this machine"),
        open_cluster(ClusterOptions(slurm=file)),
    ):
        pass


def stand_in(folder: Path, name: str, script: str) -> None:
    """Put a program that stands in for one of Slurm's into `folder`."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.timeout(120)
def test_jobs_become_workers_with_their_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in(
        programs,
        "sbatch",
        # Slurm keeps the script, which is thrown away afterwards.
        f'cp "$1" {tmp_path}/job.sh; setsid sh {tmp_path}/job.sh >{tmp_path}/out 2>&1 & '
        'echo "Submitted batch job $!"',
    )
    stand_in(programs, "scancel", 'kill -- "-$1"')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    file = tmp_path / "slurm.yaml"
    file.write_text(
        "jobs: 1\ncores: 1\nmemory: 2GB\nqueue: gpu\nscheduler_options: {host: 127.0.0.1}\n"
        'job_extra_directives: ["--gres=gpu:2"]\n'
    )
    with open_cluster(ClusterOptions(slurm=file, gpus_per_worker=2)) as cluster:
        (worker,) = cluster.workers()
        offered = cluster.client.scheduler_info()["workers"][worker]["resources"]
        assert offered == {"GPU": 2}
        script = (tmp_path / "job.sh").read_text()
    assert "#SBATCH -p gpu" in script
    assert "#SBATCH --gres=gpu:2" in script
    stand_in(programs, "sbatch", 'echo "invalid partition" >&2; exit 1')
    with (
        pytest.raises(PolyRefuseError, match=r"cannot be started: .*invalid partition"),
        open_cluster(ClusterOptions(slurm=file)),
    ):
        pass
