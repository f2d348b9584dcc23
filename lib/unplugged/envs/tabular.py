"""Decision processes whose dynamics are known: they are recorded at once, and judged exactly.

`sepsis` is the ICU-Sepsis benchmark (Choudhary et al., 2024), built from intensive-care records;
the package `icu-sepsis` brings its numbers. `drifting` is a small one that needs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from unplugged.common import checks

_LIMIT = 1_000  # decisions of an episode


@dataclasses.dataclass(frozen=True)
class Process:
    """A decision process of S states, some of them final, and A actions.

    Attributes:
      move: probabilities of the next state. Shape [S, A, S].
      reward: of each transition. Shape [S, A, S].
      begin: probabilities of the first state. Shape [S].
      final: where an episode is over. Shape [S].
      features: what is observed in a state. Shape [S, F].
      allowed: which actions may be taken. Shape [S, A].
      behavior: probabilities of the recorded policy. Shape [S, A].
    """

    move: np.ndarray
    reward: np.ndarray
    begin: np.ndarray
    final: np.ndarray
    features: np.ndarray
    allowed: np.ndarray
    behavior: np.ndarray

    def values(self, policy: np.ndarray, discount: float = 1.0) -> np.ndarray:
        """The exact returns of a policy [S, A] from each state, by a linear solve. Shape [S]."""
        going = ~self.final
        move = (policy[going, None] @ self.move[going])[:, 0, going]
        reward = (policy[going] * self.earned[going]).sum(axis=1)
        found = np.zeros(len(going))
        found[going] = np.linalg.solve(np.eye(len(reward)) - discount * move, reward)
        return found

    def value(self, policy: np.ndarray, discount: float = 1.0) -> float:
        """The exact return of a policy [S, A]."""
        return float(self.begin @ self.values(policy, discount))

    @functools.cached_property
    def earned(self) -> np.ndarray:
        """Mean reward of each action. Shape [S, A]."""
        return np.einsum("sat,sat->sa", self.move, self.reward)

    def optimal(self, discount: float = 1.0) -> np.ndarray:
        """A policy [S, A] of the highest return among those that are allowed."""
        policy = self.uniform()
        for _ in range(_LIMIT):  # Policy iteration; it takes a few.
            values = self.values(policy, discount)
            q = np.where(self.allowed, self.earned + discount * self.move @ values, -np.inf)
            chosen = np.eye(self.allowed.shape[1])[q.argmax(axis=1)]
            kept = (policy * np.where(self.allowed, q, 0.0)).sum(axis=1)
            better = q.max(axis=1) > kept + 1e-9
            if not better.any():
                return policy
            policy = np.where(better[:, None], chosen, policy)
        return policy

    def uniform(self) -> np.ndarray:
        """The policy [S, A] that takes each allowed action as often."""
        return self.allowed / self.allowed.sum(axis=1, keepdims=True)

    def play(
        self, act: Callable[[np.ndarray], np.ndarray], episodes: int, rng: np.random.Generator
    ) -> pd.DataFrame:
        """Plays episodes at once; those that are over wait for the others.

        Args:
          act: states [episodes] -> actions [episodes].
          episodes: how many.
          rng: the process's randomness.

        Returns:
          A row a decision, by episode and step: `episode`, `step`, `state`, `action`, `reward`,
          `following`, the next state, and `ended`.
        """
        state = drawn(np.broadcast_to(self.begin, (episodes, len(self.begin))), rng)
        running, parts = np.arange(episodes), []
        for step in range(_LIMIT):
            action = np.asarray(act(state))[running]
            before = state[running]
            following = drawn(self.move[before, action], rng)
            over = self.final[following]
            columns = {
                "episode": running, "step": step, "state": before, "action": action,
                "reward": self.reward[before, action, following], "following": following,
                "ended": over,
            }  # fmt: skip
            parts.append(pd.DataFrame(columns))
            state[running] = following
            running = running[~over]
            if not len(running):
                break
        return pd.concat(parts).sort_values(["episode", "step"], ignore_index=True)

    def record(self, episodes: int, seed: int, policy: np.ndarray | None = None) -> pd.DataFrame:
        """A table of episodes, a row a decision, under a policy [S, A]; None: `behavior`.

        Returns:
          Columns `episode`, `step`, `state`, `f0` ... , `action` ("a0" ...), `reward`, `ended`,
          `probability` of the action, and `may_a0` ..., whether each action was allowed.
        """
        policy = self.behavior if policy is None else policy
        rng = np.random.default_rng(seed)
        rows = self.play(lambda state: drawn(policy[state], rng), episodes, rng)
        rows["probability"] = policy[rows["state"], rows["action"]]
        named = pd.DataFrame(self.features[rows["state"]]).add_prefix("f")
        masks = pd.DataFrame(self.allowed[rows["state"]]).add_prefix("may_a")
        rows["action"] = "a" + rows["action"].astype(str)
        return pd.concat([rows.drop(columns="following"), named, masks], axis=1)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """What is seen of states [N]: features, then which actions are allowed. [N, F + A]."""
        allowed = self.allowed | self.final[:, None]
        return np.concatenate([self.features, allowed], axis=1)[state].astype(np.float32)

    def states(self) -> pd.DataFrame:
        """A row a state, with the columns that a policy learned from `record` asks for."""
        named = pd.DataFrame(self.features).add_prefix("f")
        allowed = np.where(self.final[:, None], True, self.allowed)
        return pd.concat([named, pd.DataFrame(allowed).add_prefix("may_a")], axis=1)


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index of each row [N, K]."""
    below = probabilities.cumsum(axis=1)
    uniform = rng.random(len(below)) * below[:, -1]
    return np.minimum((uniform[:, None] >= below).sum(axis=1), below.shape[1] - 1)


@functools.cache
def make(name: str) -> Process:
    """The process of that name, a row of `PROCESSES`.

    Raises:
      ValueError: if there is none, naming the nearest.
      ModuleNotFoundError: if what it is made of is not installed.
    """
    return PROCESSES[checks.one_of("process", name, PROCESSES)]()


def has_sepsis() -> bool:
    """Whether `icu-sepsis` is installed."""
    return importlib.util.find_spec("icu_sepsis") is not None


def sepsis() -> Process:
    """ICU-Sepsis: 716 states of 47 features, 25 actions, the clinicians' policy; survival pays 1.

    Its files are read, its code is not run.

    Raises:
      ModuleNotFoundError: if `icu-sepsis` is not installed.
    """
    found = importlib.util.find_spec("icu_sepsis")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "pip install --no-deps icu-sepsis brings its files", name="icu-sepsis"
        )
    assets = Path(found.origin).parent / "envs" / "assets"
    with np.load(assets / "dynamics.npz", allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    move = arrays["tx_mat"]
    lines = (assets / "admissible_actions.txt").read_text().splitlines()[1:]
    allowed = np.zeros(move.shape[:2], bool)
    for state, line in enumerate(lines[: len(move)]):
        allowed[state, [int(one) for one in line.split()]] = True
    final = np.zeros(len(move), bool)
    final[-3:] = True  # Death, survival, and what follows both.
    behavior = arrays["expert_policy"] * allowed
    allowed[~allowed.any(axis=1)] = True
    totals = behavior.sum(axis=1, keepdims=True)
    share = behavior / np.where(totals > 0, totals, 1.0)
    behavior = np.where(totals > 0, share, 1.0 / allowed.shape[1])
    return Process(
        move, arrays["r_mat"], arrays["d_0"], final, arrays["state_cluster_centers"], allowed,
        behavior,
    )  # fmt: skip


def drifting(states: int = 12, actions: int = 3, seed: int = 0) -> Process:
    """A level that drifts towards its worst end; actions move it, and to stay near 0 pays.

    Each action shifts the level by another amount, by chance; the largest shift is not allowed near
    the ends. The recorded policy chooses by habit, a little better than at random.
    """
    rng = np.random.default_rng(seed)
    levels = np.linspace(-1.0, 1.0, states)
    shifts = np.linspace(-0.35, 0.35, actions) + 0.1
    apart = levels[None, None, :] - (levels[:, None, None] + shifts[None, :, None])
    move = np.exp(-0.5 * (apart / 0.15) ** 2)
    move /= move.sum(axis=2, keepdims=True)
    ends = 0.15  # One more state, where an episode is over.
    move = np.concatenate([move * (1 - ends), np.full((states, actions, 1), ends)], axis=2)
    move = np.concatenate([move, np.eye(states + 1)[[-1]][:, None].repeat(actions, 1)])
    reward = np.zeros_like(move)
    reward[:states] = (1.0 - np.abs(levels))[:, None, None]
    begin = np.append(np.full(states, 1 / states), 0.0)
    final = np.arange(states + 1) == states
    allowed = np.ones((states + 1, actions), bool)
    allowed[0, 0] = allowed[states - 1, actions - 1] = False
    better = -np.abs(levels[:, None] + shifts)
    behavior = np.exp(better + 0.5 * rng.normal(size=better.shape))
    behavior = np.concatenate([behavior, np.ones((1, actions))]) * allowed
    behavior /= behavior.sum(axis=1, keepdims=True)
    features = np.append(np.stack([levels, levels**2], axis=1), np.zeros((1, 2)), axis=0)
    return Process(move, reward, begin, final, features, allowed, behavior)


PROCESSES: dict[str, Callable[[], Process]] = {"sepsis": sepsis, "drifting": drifting}
