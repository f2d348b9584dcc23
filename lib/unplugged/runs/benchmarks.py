"""The table of benchmarks: what is acted in, and all that one of them has of its own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks, hashing
from unplugged.data import datasets
from unplugged.envs import atari, control, environments, games, tabular
from unplugged.learning import settings
from unplugged.model.actions import Actions, Discrete
from unplugged.recording import collect, d4pg, dqn, processes
from unplugged.runs import evaluation


@dataclasses.dataclass(frozen=True)
class Recorder:
    """An agent whose training is recorded.

    Attributes:
      train: (environment, seed=..., amount=..., partial=..., noise=... if `noisy`) -> the dataset.
      random_returns: (environment, episodes=..., seed=...) -> the uniform policy's returns
        [episodes].
      amount: in what a recording's size is given, which is `train`'s name for it.
      noisy: whether actions can be replaced by random ones.
    """

    train: Callable[..., datasets.Dataset]
    random_returns: Callable[..., np.ndarray]
    amount: str
    noisy: bool = False

    def record(
        self,
        environment: str,
        *,
        seed: int,
        noise: float | None = None,
        partial: str | os.PathLike[str] | None = None,
        **amount: int | None,
    ) -> datasets.Dataset:
        """The recording of an agent's training.

        Args:
          environment: its name.
          seed: seed of environment, noise and agent.
          noise: probability that an action is replaced by a random one; None: 0.
          partial: folder for what is recorded so far, from where it goes on after a kill; the
            caller removes it when the dataset is saved. None: nothing is kept.
          amount: how much to record, `episodes` or `transitions`.

        Raises:
          ValueError: see `check`.
        """
        self.check(environment, noise=noise, **amount)
        options: dict[str, Any] = {self.amount: amount[self.amount], "partial": partial}
        if self.noisy:
            options["noise"] = noise or 0.0
        return self.train(environment, seed=seed, **options)

    def check(self, environment: str, *, noise: float | None = None, **amount: int | None) -> None:
        """Raises ValueError if the amount is given otherwise, or noise where there can be none."""
        given = [name for name, value in amount.items() if value is not None]
        if given != [self.amount]:
            raise ValueError(
                f"{environment} is recorded by {self.amount}: give {self.amount}, and nothing else "
                f"of {', '.join(amount)}"
            )
        if noise and not self.noisy:
            raise ValueError(f"{environment} has no noise of its own: leave noise at 0")

    def returns(self, dataset: datasets.Dataset) -> pd.DataFrame:
        """A row an episode: environment, noise or transitions so far, episode and return."""
        columns = {
            "environment": dataset.metadata["environment"],
            "noise": dataset.metadata.get("noise", 0.0),
            "episode": range(dataset.num_episodes),
            "transition": np.cumsum(np.diff(np.flatnonzero(dataset.is_last), prepend=-1) - 1),
            "return": dataset.episode_returns,
        }
        left_out = {"noise": not self.noisy, "transition": self.amount != "transitions"}
        return pd.DataFrame({k: v for k, v in columns.items() if not left_out.get(k)})


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What sets a benchmark apart.

    Attributes:
      preset: hyperparameters that its runs begin from.
      check: raises ValueError if an environment's name is wrong, naming the nearest.
      form: environment -> (shape of an observation, action space). None: there is no environment,
        and a dataset's own form counts.
      evaluator: (environment, policy, episodes) -> what plays. None: nothing does, and runs are
        evaluated on held-out episodes, see `heldout`.
      source: environment -> hash of its source; None where it is part of compiled programs.
      packages: packages whose versions its numbers depend on, beside the compiled programs.
      game: environment -> pure functions; None where it is no JAX program, so that online runs
        cannot compile it.
      packed: whether recorded observations are packed bits.
      of_frames: whether recordings hold single frames, which are stacked when drawn.
      recorder: makes its datasets; None: they come from elsewhere.
      process: environment -> its dynamics, if they are known: evaluations then have the exact
        return as well.
    """

    preset: settings.Settings
    check: Callable[[str], Any]
    form: Callable[[str], tuple[tuple[int, ...], Actions]] | None = None
    evaluator: Callable[[str, evaluation.Policy, int], evaluation.Evaluator] | None = None
    source: Callable[[str], str] | None = None
    packages: tuple[str, ...] = ()
    game: Callable[[str], games.Game] | None = None
    packed: bool = False
    of_frames: bool = False
    recorder: Recorder | None = None
    process: Callable[[str], tabular.Process] | None = None


def in_python(name: str, **more: Any) -> Benchmark:
    """A benchmark of `environments.MAKERS`, whose episodes are played in lock-step.

    Args:
      name: its name there.
      more: fields of `Benchmark`.
    """

    def of_world(environment: str, what: Callable[[Any], Any]) -> Any:
        world = environments.make(name, environment, seed=0)
        try:
            return what(world)
        finally:
            world.close()

    def form(environment: str) -> tuple[tuple[int, ...], Actions]:
        return of_world(environment, environments.form)

    def source(environment: str) -> str:
        return of_world(environment, hashing.of_environment)

    def evaluator(
        environment: str, policy: evaluation.Policy, episodes: int
    ) -> evaluation.Evaluator:
        make = functools.partial(environments.make, name, environment)
        return evaluation.LockStep(lambda seed: make(seed=seed), policy, episodes)

    more.setdefault("packages", (name, "numpy"))
    return Benchmark(form=form, evaluator=evaluator, source=source, **more)


def known(**more: Any) -> Benchmark:
    """A benchmark of `tabular.PROCESSES`, decision processes whose dynamics are known.

    Args:
      more: fields of `Benchmark`.
    """

    def form(environment: str) -> tuple[tuple[int, ...], Actions]:
        process = tabular.make(environment)
        return process.features.shape[1:], Discrete(process.allowed.shape[1], masked=True)

    def source(environment: str) -> str:
        process = tabular.make(environment)
        fields = (getattr(process, field.name) for field in dataclasses.fields(process))
        arrays = (np.ascontiguousarray(x).tobytes() for x in fields)
        code = hashing.of_modules([tabular.__name__], alone=True)
        return hashing.digest(code, *(hashlib.sha256(x).hexdigest() for x in arrays))

    def evaluator(
        environment: str, policy: evaluation.Policy, episodes: int
    ) -> evaluation.Evaluator:
        make = functools.partial(tabular.make, environment)
        return evaluation.Tabular(make, policy, episodes)

    return Benchmark(
        check=lambda name: checks.one_of("process", name, tabular.PROCESSES), form=form,
        evaluator=evaluator, source=source, packages=("numpy",), process=tabular.make, **more,
    )  # fmt: skip


def with_masks(row: Benchmark) -> Benchmark:
    """The row of environments whose observations end with which actions are allowed."""
    of = row.form

    def form(environment: str) -> tuple[tuple[int, ...], Actions]:
        assert of is not None  # It has environments.
        (size,), actions = of(environment)
        assert isinstance(actions, Discrete)
        return (size - actions.num_actions,), Discrete(actions.num_actions, masked=True)

    return dataclasses.replace(row, form=form)


def compiled(name: str, **more: Any) -> Benchmark:
    """A benchmark of `games.FAMILIES`, whose episodes are one program.

    Args:
      name: its name there.
      more: fields of `Benchmark`.
    """
    make = functools.partial(games.make, name)

    def form(environment: str) -> tuple[tuple[int, ...], Actions]:
        game = make(environment)
        return game.observation_shape, game.actions

    def evaluator(
        environment: str, policy: evaluation.Policy, episodes: int
    ) -> evaluation.Evaluator:
        return evaluation.Compiled(make(environment), policy, episodes)

    return Benchmark(
        check=functools.partial(games.check, name), form=form, evaluator=evaluator, game=make,
        packed=games.FAMILIES[name].of_bits, **more,
    )  # fmt: skip


BENCHMARKS: dict[str, Benchmark] = {
    "bsuite": in_python(
        "bsuite",
        preset=settings.BSUITE,
        check=lambda name: checks.one_of("bsuite environment", name, environments.BSUITE),
        recorder=Recorder(collect.train_dqn, collect.random_returns, "episodes", noisy=True),
    ),
    # Whether there is such an environment is known when it is made: it may come from a module.
    "gymnasium": in_python("gymnasium", preset=settings.GYMNASIUM, check=lambda name: None),
    "gymnasium_masked": with_masks(
        in_python(
            "gymnasium_masked",
            preset=settings.GYMNASIUM,
            check=lambda name: None,
            packages=("gymnasium", "numpy"),
        )
    ),
    "control": in_python(
        "control",
        preset=settings.CONTROL,
        check=lambda name: checks.one_of("control task", name, control.TASKS),
        packages=("dm_control", "mujoco", "numpy"),
        recorder=Recorder(d4pg.train, d4pg.random_returns, "episodes"),
    ),
    "atari": in_python(
        "atari",
        preset=settings.ATARI,
        check=atari.check,
        packages=("ale-py", "numpy"),
        of_frames=True,
    ),
    "minatar": compiled(
        "minatar",
        preset=settings.MINATAR,
        recorder=Recorder(dqn.train, dqn.random_returns, "transitions"),
    ),
    "gymnax": compiled("gymnax", preset=settings.BSUITE),
    "classic": compiled("classic", preset=dataclasses.replace(settings.CONTROL, standardize=False)),
    "tabular": known(
        preset=settings.GYMNASIUM,
        recorder=Recorder(processes.record, processes.random_returns, "episodes"),
    ),
    # No environment: a table of one's own. What it is called is in its metadata.
    "logged": Benchmark(preset=settings.GYMNASIUM, check=lambda name: None),
}


def get(name: str) -> Benchmark:
    """The benchmark of that name; raises ValueError naming the nearest if there is none."""
    return BENCHMARKS[checks.one_of("benchmark", name, BENCHMARKS)]


def dataset_name(benchmark: str, environment: str, noise: float | None = None) -> str:
    """Name of a recorded dataset; its noise is part of it where there can be some.

    Raises:
      ValueError: if nothing records datasets of that benchmark.
    """
    recorder = get(benchmark).recorder
    if recorder is None:
        known = [name for name, of in BENCHMARKS.items() if of.recorder]
        raise ValueError(
            f"no agent records datasets of {benchmark}, but of {', '.join(known)}; name a dataset "
            "of your own by its path"
        )
    return f"{benchmark}_{environment}" + (f"_noise{noise or 0.0:g}" if recorder.noisy else "")
