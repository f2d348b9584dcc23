"""What a run is: its parameters checked, its learner and data made from them."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from unplugged.common import checks, files
from unplugged.common.checks import Count, Range
from unplugged.data import datasets, frame_stores, frames, windows
from unplugged.envs import environments
from unplugged.learning import methods
from unplugged.learning.learner import Diagnosis, Learner
from unplugged.learning.settings import Settings
from unplugged.model import networks, transforms
from unplugged.model.actions import Actions, Discrete, Factored, Normal, described
from unplugged.model.critic import Critic, num_outputs, with_critic
from unplugged.planning import acting
from unplugged.runs import benchmarks, evaluation

# Root mean square of an element of observations beyond which, and spread below which, it is far
# from unit scale.
_LARGE, _SMALL = 10.0, 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnySpec:
    """What every run has, offline (`Spec`) and online (`online.OnlineSpec`).

    Attributes:
      benchmark: a row of `benchmarks.BENCHMARKS`.
      environment: name within the benchmark.
      method: name in `methods.METHODS`, or `module:name` of one's own, see `methods.get`.
      overrides: what differs from the benchmark's preset, see `settings.Settings`.
      seeds: training seeds.
      updates: updates a seed; asking for more later continues a finished run.
      eval_every: updates between evaluations, checkpoints among them. Divides `updates`.
      eval_episodes: episodes an evaluation.
      selector: action selector of the evaluation; None: the method's own.
      greedy: whether each evaluation is played by the selector's most probable actions as well, as
        many episodes: the column `greedy_return`.
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
    seeds: Sequence[Annotated[int, Range(0, 2**32 - 1)]] = (0,)
    updates: Count = 8_000
    eval_every: Count = 1_000
    eval_episodes: Count = 20
    selector: str | None = None
    greedy: bool = False
    keep_checkpoints: bool = False
    vmap_seeds: bool | None = None

    def __post_init__(self) -> None:
        checks.fields(self)
        self.of_benchmark.check(self.environment)
        method = methods.get(self.method)
        if method.imagines != self.imagines:
            kind = "the kind world" if method.imagines else "another kind"
            raise ValueError(f"runs of {self.method} are of {kind}, see the notebooks 2x_train")
        if not self.imagines:  # A world model acts at random.
            checks.one_of(f"selector of {self.method}", method.selector, acting.SELECTORS)
        if self.selector is not None:
            checks.one_of("selector", self.selector, acting.SELECTORS)
            checks.one_of(f"selector of {self.method}", self.selector, self.ways_to_act())
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {list(self.seeds)}")
        if self.updates % self.eval_every:
            raise ValueError(
                f"updates ({self.updates}) must be a multiple of eval_every ({self.eval_every})"
            )
        # Raises if an override is wrong, too.
        checks.one_of("network", self.settings.network, networks.NETWORKS)
        if self.settings.standardize and (self.of_benchmark.packed or self.of_benchmark.of_frames):
            kind = "bits" if self.of_benchmark.packed else "pixels"
            raise ValueError(
                f"standardize is true, and observations of {self.benchmark} are {kind}, which are "
                "never standardised; leave it at false"
            )

    @property
    def of_benchmark(self) -> benchmarks.Benchmark:
        """The benchmark's row."""
        return benchmarks.get(self.benchmark)

    def form(self) -> tuple[tuple[int, ...], Actions]:
        """Shape of an observation, and the action space."""
        form = self.of_benchmark.form
        if form is None:
            raise ValueError(f"{self.benchmark} has no environment to act in; learn offline")
        return form(self.environment)

    def ways_to_act(self) -> list[str]:
        """Selectors that use nothing but what the method learns."""
        method = methods.get(self.method)
        if method.unrolls:
            return [name for name in acting.SELECTORS if name not in acting.BY_CRITIC]
        by_policy = ["policy", "greedy"] if method.learns_policy else []
        by_critic = "implicit" if method.critic == "implicit" else "critic"
        ways = [*by_policy, *([by_critic] if method.bootstraps else []), method.selector]
        return list(dict.fromkeys(ways))

    def compared_ways(self) -> list[str]:
        """Of the ways to act those of MuZero Unplugged's Table 2, `greedy` and by a critic."""
        ways = self.ways_to_act()
        compared = ("policy", "greedy", "value", "search", *acting.BY_CRITIC)
        return [name for name in compared if name in ways]

    @property
    def settings(self) -> Settings:
        """The benchmark's preset with the overrides."""
        return self.of_benchmark.preset.override(self.overrides)

    @property
    def acts_by(self) -> str:
        """The selector of the evaluation."""
        return self.selector or methods.get(self.method).selector

    def check_suits(self, actions: Actions) -> None:
        """Raises ValueError if method or selector are for another kind of actions."""
        if not methods.get(self.method).suits(actions):
            others = [name for name, of in methods.METHODS.items() if of.suits(actions)]
            raise ValueError(
                f"{self.method} is not for the {described(actions)} of {self.environment}; these "
                f"methods are: {', '.join(name for name in others if name != 'world_model')}"
            )
        if methods.get(self.method).climbs and self.settings.policy_head != "normal":
            raise ValueError(
                f"{self.method} follows the gradient of values by actions, which a policy of bins "
                'has none of: leave policy_head at "normal"'
            )
        if actions.continuous and self.acts_by not in acting.OF_CONTINUOUS:
            raise ValueError(
                f"selector {self.acts_by} is not for the {described(actions)} of "
                f"{self.environment}; these are: {', '.join(acting.OF_CONTINUOUS)}"
            )

    def evaluator(
        self,
        model: networks.Model,
        *,
        selector: str | None = None,
        episodes: int | None = None,
        greedy: bool = False,
    ) -> evaluation.Evaluator:
        """Plays fresh episodes; None: as the run does. If `greedy`, by most probable actions."""
        make = self.of_benchmark.evaluator
        if make is None:
            raise ValueError(
                f"{self.benchmark} has no environment to play in; see selection.report"
            )
        policy = evaluation.make_policy(
            model, selector or self.acts_by, self.settings, greedy=greedy
        )
        episodes = episodes or self.eval_episodes
        return make(self.environment, policy, episodes)

    @property
    def updates_at_once(self) -> int:
        """A compiled call does a multiple of this many updates."""
        return 1

    def labels(self) -> dict[str, Any]:
        """Columns of the results that tell which share of a dataset was trained on."""
        return {"fraction": 1.0, "holdout": 0.0}

    def columns(self, state: Any, learner: Any, data: Any) -> dict[str, Any]:
        """Columns of the results beside those that every run has.

        Args:
          state: a seed's state.
          learner: see `build`.
          data: see `build`.
        """
        del state, learner, data
        return {}

    def learner(self, observation_shape: Sequence[int], actions: Actions) -> Any:
        """The run's learner, for an environment of this form."""
        raise NotImplementedError

    def build(self) -> tuple[Any, Any, datasets.Dataset | None]:
        """The learner, its data on the device, and the dataset if there is one."""
        raise NotImplementedError

    def prepare(self) -> tuple[Any, datasets.Dataset | None]:
        """The learner and the dataset; data that only training needs need not go to the device."""
        learner, _, dataset = self.build()
        return learner, dataset

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
      diagnose: whether each evaluation says how sharp the policy and its target are on recorded
        states: the columns of `learner.Diagnosis`.
    """

    dataset: str
    fraction: Annotated[float, Range(0.0, 1.0, open_low=True)] = 1.0
    data_seed: Annotated[int, Range(0)] = 0
    holdout: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.0
    diagnose: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.settings.cloning_updates and methods.get(self.method).objective is not None:
            raise ValueError(f"{self.method} does not plan: leave cloning_updates at 0")
        if self.of_benchmark.evaluator is None:
            if not self.holdout:
                raise ValueError(
                    f"{self.benchmark} has no environment, and runs are evaluated on episodes that "
                    "they hold out: give holdout, such as 0.2"
                )
            if self.greedy:
                raise ValueError(
                    f"{self.benchmark} has no environment to play in: leave out greedy"
                )

    def form(self) -> tuple[tuple[int, ...], Actions]:
        """Shape of an observation, and the action space: the environment's or the dataset's."""
        if self.of_benchmark.form is None:
            return datasets.form(self.dataset)
        return super().form()

    def labels(self) -> dict[str, Any]:
        """Columns of the results that tell which share of a dataset was trained on."""
        return {"fraction": self.fraction, "holdout": self.holdout}

    def columns(self, state: Any, learner: Any, data: Any) -> dict[str, Any]:
        """The diagnosis, if it is wanted; empty columns where the method has no operator."""
        if not self.diagnose:
            return {}
        if methods.get(self.method).operator is None:
            return dict.fromkeys(Diagnosis._fields)
        return {k: round(float(v), 6) for k, v in learner.diagnose(state, data)._asdict().items()}

    def learner(
        self,
        observation_shape: Sequence[int],
        actions: Actions,
        moments: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Learner:
        """The run's learner, for an environment of this form; arguments as for `model`.

        Raises:
          ValueError: if the method, or the selector, is for another kind of actions.
        """
        method = methods.get(self.method)
        self.check_suits(actions)
        if self.diagnose and actions.continuous:
            raise ValueError(
                "diagnose counts the commonest of discrete actions, and those of "
                f"{self.environment} are continuous: leave it at false"
            )
        if _has_masks(actions) and (self.settings.network != "mlp" or len(observation_shape) > 1):
            raise ValueError(
                "masks of actions are for observations that are vectors and the network mlp, not "
                f"for {list(observation_shape)} and {self.settings.network}"
            )
        model = self.model(observation_shape, actions, moments, critic=method.critic)
        return Learner(method.extend(model) if method.extend else model, method, self.settings)

    def model(
        self,
        observation_shape: Sequence[int],
        actions: Actions,
        moments: tuple[np.ndarray, np.ndarray] | None = None,
        *,
        critic: Critic = "categorical",
    ) -> networks.Model:
        """The settings' networks.

        Args:
          observation_shape: shape of one observation.
          actions: the action space.
          moments: of the data, see `datasets.moments`, if observations are standardised. None: 0
            and 1, which make the same programs.
          critic: what reads the outputs of the dynamics' scalar head, see `with_critic`.
        """
        model = model_of(self.settings, observation_shape, actions, critic)
        if self.settings.standardize:
            mean, deviation = moments or (np.zeros(observation_shape), np.ones(observation_shape))
            scale = np.where(deviation == 0.0, 1.0, deviation)
            model = networks.standardized(model, mean, scale)
        return networks.masked(model) if _has_masks(actions) else model

    def build(self) -> tuple[Learner, windows.Store, datasets.Dataset | None]:
        """The learner, its data on the device, and the dataset; see `build`."""
        return build(self)

    def prepare(self) -> tuple[Learner, datasets.Dataset]:
        """The learner and the dataset, nothing of which is put on the device; see `prepare`."""
        return prepare(self)

    def described_data(self, store: windows.Store) -> windows.Store:
        """The store itself."""
        return store


def _has_masks(actions: Actions) -> bool:
    return isinstance(actions, Discrete) and actions.masked


PARAMETERS = [field.name for field in dataclasses.fields(Spec)]


def of_folder(folder: str | os.PathLike[str]) -> Spec:
    """The offline run whose results a folder holds.

    Raises:
      FileNotFoundError: if it holds no finished run.
      ValueError: if that is another kind of run.
    """
    path = files.expanded(folder) / "provenance.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no finished run: it has no {path.name}")
    parameters = json.loads(path.read_text()).get("parameters", {"nothing": None})
    if other := sorted(set(parameters) - set(PARAMETERS)):
        raise ValueError(f"{folder} is no offline run (it has {', '.join(other[:3])})")
    return Spec(**parameters)


def divide(
    spec: Spec, dataset: datasets.Dataset
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """What a run trains on, and what it holds out (None: nothing), of a whole dataset."""
    dataset = datasets.subsample(dataset, spec.fraction, spec.data_seed)
    if not spec.holdout:
        return dataset, None
    return datasets.split(dataset, spec.holdout, spec.data_seed)


def load(path: str) -> Any:
    """A dataset, or a recording of frames, of which most is like one; see `datasets.load`."""
    return frames.load(path) if frames.is_recording(path) else datasets.load(path)


def on_device(dataset: Any) -> Any:
    """What `load` gave, to draw from: a store or, of frames that do not fit it, a `Host`."""
    if isinstance(dataset, frames.Recording):
        return frame_stores.opened(dataset)
    return windows.store(dataset)


def load_dataset(
    path: str, environment: str, observation_shape: Sequence[int], actions: Actions
) -> datasets.Dataset:
    """A dataset, or a recording of frames, of an environment of that name and form.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment.
    """
    dataset = load(path)
    recorded_in = dataset.metadata.get("environment")
    if recorded_in is None:
        raise datasets.DatasetError(
            f"{path} does not say in which environment it was recorded; give its metadata "
            f"'environment', such as {environment!r}"
        )
    if not environments.same(recorded_in, environment):
        raise datasets.DatasetError(
            f"{path} was recorded in {recorded_in!r}, not in {environment!r}"
        )
    datasets.check_fits(dataset, observation_shape, actions)
    return dataset


def _support(settings: Settings) -> transforms.Support:
    """What the bins of rewards and values stand for."""
    return transforms.Support(settings.num_bins, settings.bin_spacing)


def model_of(
    settings: Settings,
    observation_shape: Sequence[int],
    actions: Actions,
    critic: Critic = "categorical",
) -> networks.Model:
    """The settings' networks for an environment of this form, and for a method's critic."""
    if isinstance(actions, Normal) and settings.policy_head == "factored":
        actions = Factored(actions.dims, settings.action_bins)
    model = networks.NETWORKS[settings.network](
        observation_shape=observation_shape,
        actions=actions,
        num_bins=num_outputs(critic, settings),
        **settings.sizes(),
    )
    if settings.compute_dtype != "float32":
        model = networks.computed_in(model, settings.compute_dtype)
    if critic == "categorical":
        model = dataclasses.replace(model, support=_support(settings))
    return with_critic(model, critic)


def prepare(spec: Spec) -> tuple[Learner, datasets.Dataset]:
    """Loads and checks the dataset, and makes the learner for it.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment, or its observations
        are bits and to be standardised.
      ValueError: if a batch is larger than the windows there are.
    """
    form = spec.form()
    dataset, _ = divide(spec, load_dataset(spec.dataset, spec.environment, *form))
    settings = spec.settings
    if settings.batch_size > dataset.num_transitions:
        raise ValueError(
            f"batch_size {settings.batch_size} is larger than the {dataset.num_transitions} "
            f"windows of the dataset (fraction {spec.fraction}, holdout {spec.holdout}); lower it "
            "to at most that"
        )
    moments = _moments(spec.dataset, dataset, settings)
    learner = spec.learner(*form, moments)
    if methods.get(spec.method).critic == "categorical":
        check_range(dataset, _support(settings), settings)
    return learner, dataset


def build(spec: Spec) -> tuple[Learner, windows.Store, datasets.Dataset]:
    """The same as `prepare`, and the data on the device between the two.

    Raises:
      DatasetError: as `prepare`, and if there is no room for the data.
      ValueError: as `prepare`, and if `diagnose` cannot look at them.
    """
    learner, dataset = prepare(spec)
    data = on_device(dataset)
    if spec.diagnose and isinstance(data, frame_stores.Host):
        raise ValueError(
            "diagnose looks at states on the device, and these frames do not fit it: leave it at "
            "false, or lower fraction"
        )
    return learner, data, dataset


def _moments(
    path: str, dataset: datasets.Dataset, settings: Settings
) -> tuple[np.ndarray, np.ndarray] | None:
    """The moments to standardise by; None, and a warning if it seems needed, if that is off."""
    if isinstance(dataset, frames.Recording):
        return None
    if dataset.metadata.get("packed_shape"):
        if settings.standardize:
            raise datasets.DatasetError(
                f"{path}: observations are packed to bits, which are never standardised; set "
                'overrides {"standardize": false}'
            )
        return None
    moments = datasets.moments(dataset)
    if settings.standardize:
        return moments
    check_scale(dataset, *moments)
    return None


def check_scale(dataset: datasets.Dataset, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Warns if elements of observations are so large, or vary so little, that little is learned.

    Args:
      dataset: what is trained on.
      mean: of each element, see `datasets.moments`.
      deviation: the same.
    """
    size = np.sqrt(mean**2 + deviation**2)
    spread = dataset.observation.max(axis=0) - dataset.observation.min(axis=0)
    far = np.argwhere((size > _LARGE) | ((deviation > 0) & (spread < _SMALL)))
    if not len(far):
        return
    shown = [
        f"{index[0] if len(index) == 1 else list(index)} ({mean[tuple(index)]:.3g} ± "
        f"{deviation[tuple(index)]:.2g})"
        for index in far[:5].tolist()
    ]
    more = f" and {len(far) - 5} more" if len(far) > 5 else ""
    warnings.warn(
        f"observations of {dataset.metadata.get('environment')} are far from unit scale in column "
        f"{', '.join(shown)}{more}: networks learn little from such inputs; set overrides "
        '{"standardize": true}',
        stacklevel=2,
    )


def check_range(dataset: datasets.Dataset, support: transforms.Support, settings: Settings) -> None:
    """Warns if rewards or discounted returns are beyond what the bins of values represent."""
    largest = np.abs(dataset.reward).max()
    if largest <= support.limit * (1.0 - settings.discount):
        return  # Whatever the returns are.
    totals = datasets.returns_to_go(dataset, settings.discount)
    largest = max(np.abs(totals).max(), largest)
    if largest > support.limit:
        warnings.warn(
            f"rewards or discounted returns of {dataset.metadata.get('environment')} reach "
            f"{largest:.4g}, and {settings.num_bins} bins represent at most {support.limit:.4g}: "
            "what is beyond is clipped; raise num_bins",
            stacklevel=2,
        )
