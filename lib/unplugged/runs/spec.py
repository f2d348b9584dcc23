"""What a run is: its parameters checked, its learner and data made from them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from unplugged.common import checks
from unplugged.data import datasets, windows
from unplugged.learning import methods
from unplugged.learning.learner import Learner
from unplugged.learning.settings import Settings
from unplugged.model import networks, transforms
from unplugged.planning import acting
from unplugged.runs import benchmarks, evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnySpec:
    """What every run has, offline (`Spec`) and online (`online.OnlineSpec`).

    Attributes:
      benchmark: a row of `benchmarks.BENCHMARKS`.
      environment: name within the benchmark.
      method: name in `methods.METHODS`.
      overrides: what differs from the benchmark's preset, see `settings.Settings`.
      seeds: training seeds.
      updates: updates a seed; asking for more later continues a finished run.
      eval_every: updates between evaluations, checkpoints among them. Divides `updates`.
      eval_episodes: episodes an evaluation.
      selector: action selector of the evaluation; None: the method's own.
      keep_checkpoints: whether every evaluation's checkpoint stays, or only the last.
      vmap_seeds: all seeds in one program (True), one after the other (False), or as the
        device likes it (None: True on accelerators).
    """

    imagines: ClassVar[bool] = False  # which methods it is for
    kind_of_settings: ClassVar[type[Settings]] = Settings

    benchmark: str = "bsuite"
    environment: str = "catch"
    method: str = "rosmo"
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    updates: int = 8_000
    eval_every: int = 1_000
    eval_episodes: int = 20
    selector: str | None = None
    keep_checkpoints: bool = False
    vmap_seeds: bool | None = None

    def __post_init__(self) -> None:
        self.of_benchmark.check(self.environment)
        checks.one_of("method", self.method, methods.METHODS)
        if methods.METHODS[self.method].imagines != self.imagines:
            kind = "the kind world" if methods.METHODS[self.method].imagines else "another kind"
            raise ValueError(f"runs of {self.method} are of {kind}, see the notebooks 2x_train")
        if self.selector is not None:
            checks.one_of("selector", self.selector, acting.SELECTORS)
            checks.one_of(f"selector of {self.method}", self.selector, self.ways_to_act())
        seeds = tuple(self.seeds)
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
        for seed in seeds:
            checks.within("seed", seed, 0, 2**32 - 1, integer=True)
        object.__setattr__(self, "seeds", seeds)
        object.__setattr__(self, "overrides", dict(self.overrides))
        checks.within("updates", self.updates, 1, integer=True)
        checks.within("eval_every", self.eval_every, 1, integer=True)
        checks.within("eval_episodes", self.eval_episodes, 1, integer=True)
        if self.updates % self.eval_every:
            raise ValueError(
                f"updates ({self.updates}) must be a multiple of eval_every ({self.eval_every})"
            )
        # Raises if an override is wrong, too.
        checks.one_of("network", self.settings.network, networks.NETWORKS)

    @property
    def of_benchmark(self) -> benchmarks.Benchmark:
        """The benchmark's row."""
        return benchmarks.get(self.benchmark)

    def ways_to_act(self) -> list[str]:
        """Selectors that use nothing but what the method learns."""
        method = methods.METHODS[self.method]
        if method.unrolls:
            return [name for name in acting.SELECTORS if name != "critic"]
        by_policy = ["policy", "greedy"] if method.learns_policy else []
        return [*by_policy, *(["critic"] if method.bootstraps else [])]

    def compared_ways(self) -> list[str]:
        """Of the ways to act those of MuZero Unplugged's Table 2, `critic` and `greedy`."""
        ways = self.ways_to_act()
        return [x for x in ("policy", "greedy", "value", "search", "critic") if x in ways]

    @property
    def settings(self) -> Settings:
        """The benchmark's preset with the overrides."""
        return self.of_benchmark.preset.override(self.overrides)

    @property
    def acts_by(self) -> str:
        """The selector of the evaluation."""
        return self.selector or methods.METHODS[self.method].selector

    def evaluator(
        self, model: networks.Model, *, selector: str | None = None, episodes: int | None = None
    ) -> evaluation.Evaluator:
        """Plays fresh episodes; None: as the run does."""
        policy = evaluation.make_policy(model, selector or self.acts_by, self.settings)
        episodes = episodes or self.eval_episodes
        return self.of_benchmark.evaluator(self.environment, policy, episodes)

    @property
    def updates_at_once(self) -> int:
        """A compiled call does a multiple of this many updates."""
        return 1

    def labels(self) -> dict[str, Any]:
        """Columns of the results that tell which share of a dataset was trained on."""
        return {"fraction": 1.0, "holdout": 0.0}

    def columns(self, state: Any) -> dict[str, Any]:
        """Columns of the results beside those that every run has."""
        del state
        return {}

    def learner(self, observation_shape: Sequence[int], num_actions: int) -> Any:
        """The run's learner, for an environment of this form."""
        raise NotImplementedError

    def build(self) -> tuple[Any, Any, datasets.Dataset | None]:
        """The learner, its data on the device, and the dataset if there is one."""
        raise NotImplementedError

    def described_data(self, store: Any) -> Any:
        """What `build` puts on the device, each dataset in it given as `store`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Spec(AnySpec):
    """An offline run; see `AnySpec` for the rest. The parameters of the training notebook.

    Attributes:
      dataset: path of the dataset file.
      fraction: share of the dataset's episodes to train on. In (0, 1].
      data_seed: seed of the subsampling, and of the split.
      holdout: share of those episodes that is kept from training, for offline policy
        selection. In [0, 1).
    """

    dataset: str
    fraction: float = 1.0
    data_seed: int = 0
    holdout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.within("fraction", self.fraction, 0.0, 1.0, open_low=True)
        checks.within("data_seed", self.data_seed, 0, integer=True)
        checks.within("holdout", self.holdout, 0.0, 1.0)

    def labels(self) -> dict[str, Any]:
        """Columns of the results that tell which share of a dataset was trained on."""
        return {"fraction": self.fraction, "holdout": self.holdout}

    def learner(self, observation_shape: Sequence[int], num_actions: int) -> Learner:
        """The run's learner, for an environment of this form."""
        model = model_of(self.settings, observation_shape, num_actions)
        return Learner(model, methods.get(self.method), self.settings)

    def build(self) -> tuple[Learner, windows.Store, datasets.Dataset | None]:
        """The learner, its data on the device, and the dataset; see `build`."""
        return build(self)

    def described_data(self, store: windows.Store) -> windows.Store:
        """The store itself."""
        return store


PARAMETERS = [field.name for field in dataclasses.fields(Spec)]


def divide(
    spec: Spec, dataset: datasets.Dataset
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """What a run trains on, and what it holds out (None: nothing), of a whole dataset."""
    dataset = datasets.subsample(dataset, spec.fraction, spec.data_seed)
    if not spec.holdout:
        return dataset, None
    return datasets.split(dataset, spec.holdout, spec.data_seed)


def load_dataset(
    path: str, environment: str, observation_shape: Sequence[int], num_actions: int
) -> datasets.Dataset:
    """A dataset that was recorded in an environment of that name and form.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment.
    """
    dataset = datasets.load(path)
    recorded_in = dataset.metadata.get("environment")
    if recorded_in != environment:
        raise datasets.DatasetError(
            f"{path} was recorded in {recorded_in!r}, not in {environment!r}"
        )
    datasets.check_fits(dataset, observation_shape, num_actions)
    return dataset


def model_of(
    settings: Settings, observation_shape: Sequence[int], num_actions: int
) -> networks.Model:
    """The settings' networks for an environment of this form."""
    return networks.NETWORKS[settings.network](
        observation_shape=observation_shape,
        num_actions=num_actions,
        num_bins=settings.num_bins,
        representation=settings.representation,
        dynamics=settings.dynamics,
        prediction=settings.prediction,
    )


def build(spec: Spec) -> tuple[Learner, windows.Store, datasets.Dataset]:
    """Loads and checks the dataset, and makes the learner for it.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment.
      ValueError: if a batch is larger than the windows there are.
    """
    form = spec.of_benchmark.form(spec.environment)
    dataset, _ = divide(spec, load_dataset(spec.dataset, spec.environment, *form))
    settings = spec.settings
    if settings.batch_size > dataset.num_transitions:
        raise ValueError(
            f"batch_size {settings.batch_size} is larger than the {dataset.num_transitions} "
            f"windows of the dataset (fraction {spec.fraction}, holdout {spec.holdout}); lower it "
            "to at most that"
        )
    learner = spec.learner(*form)
    check_range(dataset, transforms.Support(settings.num_bins), settings)
    return learner, windows.store(dataset), dataset


def check_range(dataset: datasets.Dataset, support: transforms.Support, settings: Settings) -> None:
    """Warns if rewards or discounted returns are beyond what the bins of values represent."""
    totals, after = [], 0.0
    going_on = settings.discount * dataset.discount.astype(np.float64) * ~dataset.is_last
    for reward, discount in zip(dataset.reward[::-1].tolist(), going_on[::-1].tolist()):
        after = reward + discount * after
        totals.append(after)
    largest = max(np.abs(totals).max(), np.abs(dataset.reward).max())
    limit = float(transforms.unsquash(support.bins[-1]))
    if largest > limit:
        warnings.warn(
            f"rewards or discounted returns of {dataset.metadata.get('environment')} reach "
            f"{largest:.4g}, and {settings.num_bins} bins represent at most {limit:.4g}: what is "
            "beyond is clipped; raise num_bins",
            stacklevel=2,
        )
