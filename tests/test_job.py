"""What a job hands to a notebook."""

import json

import pytest
import yaml

from reproduction import job


@pytest.mark.parametrize(
    "value", [1e-05, -2.5e20, 3, True, None, "no", "1e-05", "a: b; $(c)", [0.1, None], {"a": [1]}]
)
def test_parameters_reach_a_notebook_as_they_are(value):
    read = yaml.safe_load(job.as_yaml(json.dumps({"x": value})))
    assert read == {"x": value} and type(read["x"]) is type(value)
