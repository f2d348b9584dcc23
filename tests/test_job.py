"""What a job hands to a notebook."""

import json
from types import SimpleNamespace

import pytest
import yaml

from reproduction import job


@pytest.mark.parametrize(
    "value", [1e-05, -2.5e20, 3, True, None, "no", "1e-05", "a: b; $(c)", [0.1, None], {"a": [1]}]
)
def test_parameters_reach_a_notebook_as_they_are(value):
    read = yaml.safe_load(job.as_yaml(json.dumps({"x": value})))
    assert read == {"x": value} and type(read["x"]) is type(value)


def test_a_process_tells_which_notebook_papermill_runs(tmp_path, monkeypatch):
    started = []

    def run(command, **options):
        started.append(" ".join(command))
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(job.subprocess, "run", run)
    runs = tmp_path / "runs" / "tiny"
    runs.mkdir(parents=True)
    code = job.run("notebooks/20_train.ipynb", "x.ipynb", tmp_path / "log", "{}", runs, [])
    assert code == 1
    assert "papermill notebooks/20_train" in started[0]  # By which `make storm` finds its stages.
