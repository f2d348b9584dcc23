"""A profile is data: its file, its form and every value in it are checked before any work."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from reproduction import plan, profiles

ROOT = Path(__file__).parents[1]

GOOD = """
profile: mine
datasets:
  - {environment: catch, noise: [0.0, 0.1], episodes: 5}
collection: {seed: 0, random_episodes: 3}
experiments:
  one:
    grid: {environment: [catch], method: [rosmo, mzu]}
    common: &common {noise: 0.0, seeds: [0], updates: 100, eval_every: 50}
  two:
    grid: {environment: [catch], updates: [200]}
    common: {<<: *common, noise: 0.1}
"""


def refused(tmp_path, text):
    """The lines that a profile is refused with."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(profiles.ProfileError) as error:
        plan.read(tmp_path / "mine.yaml")
    assert all(line.startswith(f"{tmp_path / 'mine.yaml'}: ") for line in error.value.lines)
    return [line.removeprefix(f"{tmp_path / 'mine.yaml'}: ") for line in error.value.lines]


def test_anchors_and_merges_go_on_working(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    content, wanted = plan.read(tmp_path / "mine.yaml")
    assert content["experiments"]["two"]["common"] == {
        "noise": 0.1, "seeds": [0], "updates": 100, "eval_every": 50,
    }  # fmt: skip
    assert wanted.specs["two", "catch"].updates == 200


@pytest.mark.parametrize(
    "old, new, line",
    [
        # Keys, at every level.
        ("collection:", "colection: 1\ncollection:", "unknown key 'colection': did you mean"),
        ("noise: [0.0, 0.1], ", "nose: [0.1], ", "datasets[0]: unknown key 'nose': did you mean"),
        ("seed: 0", "sead: 0, seed: 0", "collection: unknown key 'sead': did you mean 'seed'"),
        ("  two:", "  two:\n    together_: true", "experiments.two: unknown key 'together_': did"),
        ("updates: 100", "update: 100", "experiments.one.common: unknown run parameter 'update': "),
        ("updates: 100", "overrides: {td_step: 2}", "experiments.one: unknown setting 'td_step': "),
        # Twice, at every level.
        ("profile: mine", "profile: mine\nprofile: other", "line 3: the key 'profile' stands"),
        ("episodes: 5", "episodes: 5, episodes: 6", "line 4: the key 'episodes' stands"),
        ("noise: 0.1}", "noise: 0.1, noise: 0.0}", "line 12: the key 'noise' stands"),
        ("  two:", "  one:", "line 10: the key 'one' stands"),
        # Types and ranges.
        ("noise: [0.0, 0.1]", "noise: [0.0, 7]", "datasets[0].noise[1] must lie in [0.0, 1.0]"),
        ("noise: [0.0, 0.1]", "noise: .nan", "datasets[0].noise must lie in [0.0, 1.0], got nan"),
        ("episodes: 5", "episodes: -1", "datasets[0].episodes must lie in [1, inf"),
        ("episodes: 5", "transitions: 5", "datasets[0]: catch is recorded by episodes"),
        ("environment: catch,", "environment: cach,", "datasets[0]: unknown bsuite environment"),
        ("[0.0, 0.1]", "[0.0, 0.0]", "datasets[0]: bsuite_catch_noise0 stands there twice"),
        ("seed: 0", "seed: zero", "collection.seed must be an integer, got 'zero'"),
        ("  two:", "  two:\n    together: 'no'", "experiments.two.together must be true or false"),
        ("  two:", "  two:\n    kind: onlin", "experiments.two: unknown kind of experiment 'onl"),
        ("updates: 100", "learning_rate: .inf", "experiments.one.common.learning_rate must be fi"),
        ("updates: 100", "updates: 2020-01-01", "experiments.one.common.updates must be a number"),
        ("updates: 100", "fraction: 0", "experiments.one: fraction must lie in (0.0, 1.0], got 0"),
        ("[rosmo, mzu]", "rosmo", "experiments.one.grid.method must be a list, got 'rosmo'"),
        ("[rosmo, mzu]", "[rosmo, mzuu]", "experiments.one: unknown method 'mzuu': did you mean"),
        ("[rosmo, mzu]", "[rosmo, rosmo]", "experiments.one: the grid names the run catch_rosmo"),
        ("noise: 0.1}", "noise: 7}", "experiments.two: noise must lie in [0.0, 1.0], got 7"),
        ("noise: 0.1}", "noise: x}", "experiments.two: noise must be a number, got 'x'"),
        ("noise: 0.1}", "noise: 0.3}", "experiments.two: bsuite_catch_noise0.3 is needed but not"),
        # Sections.
        ("collection: {seed: 0, random_episodes: 3}", "", "collection is missing"),
        ("collection: {seed: 0, random_episodes: 3}", "collection:", "collection is empty"),
        ("{seed: 0, random_episodes: 3}", "{seed: 0}", "collection.random_episodes is missing"),
        ("[rosmo, mzu]", "[]", "experiments.one.grid.method is empty"),
        ("profile: mine", "", "profile is missing"),
        ("profile: mine", "profile: mine\ntiming:", "timing is empty"),
        ("profile: mine", "profile: mine\nselection: {experiment: onee, fqe_updates: 1}",
         "selection.experiment: unknown experiment 'onee': did you mean 'one'"),
        ("profile: mine", "profile: mine\nevaluation: {experiments: [one], methods: [rosm], "
         "environments: [catch], episodes: 1}", "evaluation.methods: unknown method 'rosm': did"),
        ("profile: mine", "profile: mine\nevaluation: [{experiments: [onee], methods: [rosmo], "
         "environments: [catch], episodes: 1}]", "evaluation.experiments: unknown experiment 'o"),
        ("profile: mine", "profile: mine\nvideos: {experiments: [one], methods: [rosmo], "
         "environments: [cach], steps: 9}", "videos.environments: unknown environment 'cach': did"),
        ("profile: mine", "profile: mine\nvideos: {experiments: [one], methods: [rosmo], "
         "environments: [catch], steps: 0}", "videos.steps must lie in [1, inf), got 0"),
        ("profile: mine", "profile: mine\ntiming: {experiment: [one, twoo], updates: 1, "
         "seconds: 0, repeats: 1}", "timing.experiment: unknown experiment 'twoo': did you mean"),
        ("  two:", "  mine_selectors:", "experiments: the name 'mine_selectors' is taken"),
        # Names become files and words of commands.
        ("profile: mine", 'profile: "z;touch PWNED;true "', "profile: 'z;touch PWNED;true ' is no"),
        ("profile: mine", "profile: ../mine", "profile: '../mine' is no name for profiles"),
        ("profile: mine", "profile: my..own", "profile: 'my..own' is no name for profiles"),
        ("profile: mine", "profile: published", "profile: the name 'published' is taken"),
        ("profile: mine", "profile: 3", "profile must be a text, got 3"),
        ("  two:", "  a/b:", "experiments: 'a/b' is no name for experiments"),
        ("  two:", "  $(true):", "experiments: '$(true)' is no name for experiments"),
        ("  two:", "  datasets:", "experiments: the name 'datasets' is taken"),
        ("[rosmo, mzu]", "[rosmo], selector: ['; true']", "experiments.one: 'catch_rosmo_selector"),
        # The file.
        ("  two:", "  two: [", "line "),
        ("&common {", "&common {overrides: *common, ", "an alias stands within what it names"),
        (GOOD, "", "the profile is empty"),
        (GOOD, "[1]", "the profile must hold keys and values, got [1]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_a_line(tmp_path, old, new, line):
    lines = refused(tmp_path, GOOD.replace(old, new, 1))
    assert [found for found in lines if found.startswith(line)], lines


def test_all_that_is_wrong_is_named(tmp_path):
    text = GOOD
    for old, new in (
        ("profile: mine", "profile: a b"),
        ("[0.0, 0.1]", "[-1, 2]"),
        ("random_episodes: 3", "random_episodes: 0"),
        ("[rosmo, mzu]", "[rosmoo, mzuu]"),
        ("updates: 100", "updates: 75, fraction: 2, td_steps: 0"),
        ("updates: [200]", "updates: [200], seeds: [3]"),
    ):
        text = text.replace(old, new, 1)
    lines = refused(tmp_path, text)
    wanted = ("'a b'", "noise[0]", "noise[1]", "random_episodes", "'rosmoo'", "'mzuu'", "fraction",
              "td_steps", "multiple of eval_every", "two: seeds ")  # fmt: skip
    assert [part for part in wanted if not any(part in line for line in lines)] == [], lines
    assert len(lines) == len(set(lines))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(profiles.ProfileError, match=r"none\.yaml: cannot be read: No such file"):
        plan.read(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(profiles.ProfileError, match="is not text"):
        plan.read(tmp_path / "bytes.yaml")


def test_an_environment_with_a_slash_makes_no_folder():
    assert profiles.label("environment", "ALE/Pong-v5") == "ALE-Pong-v5"
    assert profiles.label("environment", "mine:Own-v0") == "mine-Own-v0"
    assert profiles.label("environment", "space_invaders") == "space_invaders"


ATARI = {
    "profile": "mine",
    "collection": {"seed": 3, "random_episodes": 2},
    "datasets": [{"benchmark": "atari", "environment": "rosmo", "source": "tfds", "files_in": "d"}],
    "experiments": {
        "one": {
            "grid": {"environment": ["rosmo"], "method": ["bc"]},
            "common": {"benchmark": "atari"},
        }
    },
}


def test_a_word_stands_for_several_games():
    wanted = plan.plan(ATARI)
    assert len(wanted.specs) == 12 and len(wanted.collections) == 12
    pong = wanted.runs["one"]["pong_bc"]
    assert pong["dataset"] == "runs/mine/datasets/atari_pong_run1"
    assert plan.needs(pong, wanted.collections) == [f"{pong['dataset']}.returns.csv"]
    assert wanted.collections["atari_pong_run1"].notebook == "13_import_atari"
    some = {**ATARI, "datasets": [{**ATARI["datasets"][0], "checkpoints": 10, "share": 1}]}
    imported = plan.plan(some).collections["atari_pong_run1"].parameters
    assert imported["checkpoints"] == 10 and imported["share"] == 1
    one = {"benchmark": "atari", "environment": "all", "transitions": 5}
    grid = {"environment": ["all"], "method": ["bc"]}
    every = {"one": {**ATARI["experiments"]["one"], "grid": grid}}
    wanted = plan.plan({**ATARI, "datasets": [one], "experiments": every})
    assert len(wanted.specs) == 46
    assert wanted.runs["one"]["alien_bc"]["dataset"] == "runs/mine/datasets/atari_alien_dqn3"
    wanted = plan.plan(
        {**ATARI, "datasets": [{**one, "agent": {"period": 1}}], "experiments": every}
    )
    recorded = wanted.collections["atari_pong_dqn3"].parameters
    assert recorded == {"game": "pong", "transitions": 5, "agent": {"period": 1}}


@pytest.mark.parametrize(
    "games, count", [("rosmo", 12), ("all", 46), ("pong", 1), ("pong, alien", 2)]
)
def test_the_games_of_the_profile_atari_stand_in_one_line(tmp_path, games, count):
    text = (ROOT / "profiles" / "atari.yaml").read_text()
    assert text.count("&games [rosmo]") == 1
    (tmp_path / "mine.yaml").write_text(text.replace("&games [rosmo]", f"&games [{games}]"))
    _, wanted = plan.read(tmp_path / "mine.yaml")
    assert len(wanted.collections) == count and len(wanted.specs) == 5 * count


@pytest.mark.parametrize(
    "datasets, message",
    [
        ([{"environment": "pong"}], "recorded by transitions, or imported by source"),
        ([{"environment": "pong", "transitions": 5, "run": 1}], "give the one or the other"),
        ([{"environment": "pong", "share": 0}], r"share must lie in \(0.0, 1.0\], got 0"),
        ([{"environment": "pong", "run": 9}], r"run must lie in \[1, 5\], got 9"),
        ([{"environment": "pong", "checkpoints": 0}], "checkpoints must lie in .1"),
        ([{"environment": "pogn", "transitions": 5}], "did you mean 'pong'"),
        ([{"environment": "pong", "source": "tdfs"}], "did you mean 'tfds'"),
        ([{"environment": "pong", "transitions": 5, "agent": {"perod": 1}}], "mean 'period'"),
        ([{"environment": "pong", "transitions": 5, "agent": {"period": 0}}], "period must lie in"),
        ([{"environment": "pong", "run": 1, "agent": {"period": 1}}], "made here; leave it out"),
        ([{"environment": "pong", "transitions": 5}], "atari_amidar is needed but not collected"),
        (
            [{"environment": "rosmo", "run": 1}, {"environment": "pong", "transitions": 5}],
            "atari_pong_run1 and atari_pong_dqn3 are collected: name one by dataset",
        ),
    ],
)
def test_recordings_of_frames_are_refused(datasets, message):
    rows = [{"benchmark": "atari", **row} for row in datasets]
    with pytest.raises(profiles.ProfileError, match=message):
        plan.plan({**ATARI, "datasets": rows})


def test_the_pod_of_kubernetes_works_through_a_profile_in_its_volume(tmp_path):
    claim, pod = yaml.safe_load_all((ROOT / "profiles" / "kubernetes" / "job.yaml").read_text())
    spec = pod["spec"]["template"]["spec"]
    (container,), (volume,) = spec["containers"], spec["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert Path(container["workingDir"]).parent == Path(mount["mountPath"])
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (ROOT / "profiles" / f"{environment['PROFILE']}.yaml").exists()

    # Its script, where git, make, pip and python only say what they are asked for.
    stubs, clone = tmp_path / "stubs", tmp_path / "unplugged"
    for folder in (stubs, clone / ".venv" / "bin"):
        folder.mkdir(parents=True)
    for path in (
        stubs / "git",
        stubs / "make",
        *(clone / ".venv/bin" / x for x in ("pip", "python")),
    ):
        path.write_text(f'#!/bin/sh\necho {path.name} "$@"\n')
        path.chmod(0o755)
    command = [*container["command"], *container["args"]]
    environment = {**environment, "REPOSITORY": "there", "PATH": f"{stubs}:{os.environ['PATH']}"}

    def said():
        done = subprocess.run(
            command, cwd=clone, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.splitlines()

    begins = ["git clone there .", "make env", "pip install --quiet -e .[cuda,atari]"]
    works = "python pipeline.py --profile atari --cores 8"
    assert said() == [*begins, works]
    (clone / ".git").mkdir()
    assert said() == [*begins[1:], works]
