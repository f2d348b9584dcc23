"""What an online run is, its settings checked, and how its learner is made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from unplugged.common import checks
from unplugged.common.checks import Count, Range, Share
from unplugged.data import datasets, windows
from unplugged.learning import methods
from unplugged.learning.learner import Learner
from unplugged.model.actions import Actions
from unplugged.online import replay
from unplugged.online.online_learner import OnlineLearner
from unplugged.runs import benchmarks
from unplugged.runs.spec import AnySpec, load_dataset, model_of


@dataclasses.dataclass(frozen=True)
class OnlineSpec(AnySpec):
    """What an online run is; see `runs.AnySpec` for the rest.

    Attributes:
      dataset: path of a dataset file, for sources that are recorded; may be empty.
      reanalyse_fraction: share of each batch whose targets are made anew. In [0, 1]; 1 is the
        offline learner, on `dataset`. Rounded to whole windows.
      sources: weight of each source of the windows to be reanalysed: "recent", "best" (the
        episodes of highest return so far), "demonstrations" (those of the dataset), "dataset".
      replay_capacity: rows of "recent".
      best_episodes: episodes of "best".
      demonstrations: share of the dataset's episodes, those of highest return, that are the
        demonstrations. In (0, 1].
      temperatures: of the acting policy, the operator's policy^(1 / T) (mzu's: the visits), one
        after another. In (0, 1].
      temperature_updates: updates that each lasts; the last one stays.
      round_updates: updates between rounds of acting; divides eval_every.
    """

    dataset: str = ""
    reanalyse_fraction: Share = 0.9
    sources: Mapping[str, Annotated[float, Range(0.0, 1e6)]] = dataclasses.field(
        default_factory=lambda: {"recent": 1.0}
    )
    replay_capacity: Count = 100_000
    best_episodes: Count = 50
    demonstrations: Annotated[float, Range(0.0, 1.0, open_low=True)] = 0.01
    temperatures: tuple[Annotated[float, Range(0.0, 1.0, open_low=True)], ...] = (1.0, 0.5, 0.25)
    temperature_updates: Count = 2_000
    round_updates: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        compiled = [name for name, of in benchmarks.BENCHMARKS.items() if of.game]
        checks.one_of("benchmark of an online run", self.benchmark, compiled)
        for name in self.sources:
            checks.one_of("source", name, replay.SOURCES)
        given = {name: float(self.sources.get(name, 0.0)) for name in replay.SOURCES}
        weights = {name: weight for name, weight in given.items() if weight > 0}
        object.__setattr__(self, "sources", weights)
        if not weights:
            raise ValueError(f"sources are empty: give one of {', '.join(given)} a weight")
        recorded = [name for name in replay.RECORDED if name in weights]
        if recorded and not self.dataset:
            raise ValueError(f"the source {recorded[0]} has a weight, but no dataset is named")
        if self.dataset and not recorded:
            raise ValueError(
                "a dataset is named, and nothing is drawn from it; in sources, give "
                f"{' or '.join(replay.RECORDED)} a weight"
            )
        if self.first_hand == 0 and len(recorded) < len(weights):
            raise ValueError(
                f"at a Reanalyse fraction of {self.reanalyse_fraction} nothing is acted, so that "
                "only what was recorded can be learned from; lower the fraction, or name a "
                'dataset and give sources {"dataset": 1}'
            )
        stored = self.settings.batch_size - self.first_hand
        if not stored and set(weights) != {"recent"}:
            raise ValueError(
                f"at a Reanalyse fraction of {self.reanalyse_fraction} nothing is reanalysed, so "
                "that sources have no use; raise the fraction, or leave them out"
            )
        for name, count in replay.shares(weights, stored).items():
            if stored and not count:
                raise ValueError(
                    f"the source {name} has so little weight that none of the {stored} reanalysed "
                    "windows of a batch are its; raise its weight or the batch size"
                )
        if methods.get(self.method).operator is None:
            raise ValueError(f"{self.method} has no improvement operator to act by")
        if self.settings.standardize:
            raise ValueError(
                "an online run has no data at its start to standardise observations by: "
                "standardize is false"
            )
        if self.settings.cloning_updates:
            raise ValueError(
                "an online run has nothing to clone at its start: cloning_updates is 0"
            )
        if self.first_hand:
            replay.rows_each(self.replay_capacity, self.actors, self.length)
        if not self.temperatures:
            raise ValueError("temperatures must hold at least one")
        if self.eval_every % self.round_updates:
            raise ValueError(
                f"eval_every ({self.eval_every}) must be a multiple of round_updates "
                f"({self.round_updates})"
            )

    @property
    def first_hand(self) -> int:
        """Windows of a batch that are not reanalysed."""
        batch = self.settings.batch_size
        return batch - int(np.floor(self.reanalyse_fraction * batch + 0.5))

    @property
    def length(self) -> int:
        """Steps of a window, K + n + 1."""
        return sum(methods.get(self.method).window(self.settings)) + 1

    @property
    def actors(self) -> int:
        """How many worlds step at once."""
        return self.length * self.round_updates

    @property
    def updates_at_once(self) -> int:
        """A compiled call does a multiple of this many updates."""
        return self.round_updates

    def columns(self, state: Any, learner: Any, data: Any) -> dict[str, Any]:
        """Columns of the results that only an online run has."""
        del learner, data
        weights = "+".join(f"{name} {weight:g}" for name, weight in sorted(self.sources.items()))
        frames, best = 0, float("nan")
        if state.actors is not None:
            frames, best = int(state.actors.frames), float(state.actors.best)
        return {
            "reanalyse_fraction": self.reanalyse_fraction,
            "sources": weights,
            "frames": frames,
            "best_acted": best if np.isfinite(best) else None,
        }

    def learner(self, observation_shape: Sequence[int], actions: Actions) -> OnlineLearner:
        """The run's learner, its sources among it."""
        make = self.of_benchmark.game
        assert make is not None  # `__post_init__` demands one.
        game = make(self.environment)
        method, settings = methods.get(self.method), self.settings
        self.check_suits(actions)
        model = model_of(settings, observation_shape, actions)
        length, shape = self.length, game.observation_shape if game.of_bits else None
        sources: dict[str, replay.Source] = {}
        if self.first_hand:
            sources["recent"] = replay.Recent(self.replay_capacity, self.actors, length, shape)
        if "best" in self.sources:
            sources["best"] = replay.Best(self.best_episodes, game.max_steps, length, shape)
        sources |= {
            name: replay.Recorded(name, length) for name in replay.RECORDED if name in self.sources
        }
        counts = replay.shares(self.sources, settings.batch_size - self.first_hand)
        return OnlineLearner(
            learner=Learner(model, method, settings),
            game=game,
            sources=sources,
            counts={name: count for name, count in counts.items() if count},
            first_hand=self.first_hand,
            actors=self.actors,
            round_updates=self.round_updates,
            prefill=2 * length,
            temperatures=self.temperatures,
            temperature_updates=self.temperature_updates,
        )

    def described_data(self, store: windows.Store) -> dict[str, windows.Store]:
        """What `build` puts on the device, each dataset in it given as `store`."""
        return {name: store for name in replay.RECORDED if name in self.sources}

    def build(self) -> tuple[OnlineLearner, Any, datasets.Dataset | None]:
        """See `build`."""
        return build(self)


PARAMETERS = [field.name for field in dataclasses.fields(OnlineSpec)]


def build(spec: OnlineSpec) -> tuple[OnlineLearner, Any, datasets.Dataset | None]:
    """Makes the learner, its sources, and the dataset if there is one.

    Raises:
      DatasetError: if the dataset is damaged or of another environment.
      MemoryError: if replay and best episodes do not fit into memory; nothing is allocated.
    """
    form = spec.form()
    learner = spec.learner(*form)
    dataset, data = None, {}
    if spec.dataset:  # Named if a source is recorded, and only then.
        dataset = load_dataset(spec.dataset, spec.environment, *form)
        if "dataset" in spec.sources:
            data["dataset"] = windows.store(dataset)
        if "demonstrations" in spec.sources:
            data["demonstrations"] = windows.store(datasets.best(dataset, spec.demonstrations))
    stored = jax.eval_shape(lambda: learner.init(0)).sources
    together = jax.default_backend() != "cpu" if spec.vmap_seeds is None else spec.vmap_seeds
    copies = 2 * (len(spec.seeds) if together else 1)  # Before and after a compiled call.
    replay.check_memory(copies * replay.size_in_bytes(stored), "the stored data of this run")
    return learner, data, dataset
