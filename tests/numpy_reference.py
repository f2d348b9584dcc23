"""ROSMO's Algorithm 2 in plain NumPy, for one window at a time, with no code of the library.

Slow and literal on purpose: loops over steps and actions, one state at a time.
"""

import numpy as np

EPSILON = 1e-3


def h(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + EPSILON * x


def h_inverse(y):
    root = np.sqrt(1 + 4 * EPSILON * (np.abs(y) + 1 + EPSILON))
    return np.sign(y) * (((root - 1) / (2 * EPSILON)) ** 2 - 1)


def phi(x, bins):
    """Two-hot code of one scalar."""
    y = np.clip(h(x), bins[0], bins[-1])
    code = np.zeros(len(bins))
    low = min(int(np.floor(y - bins[0])), len(bins) - 2)
    code[low + 1] = y - bins[low]
    code[low] = 1 - code[low + 1]
    return code


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(p, x):
    w = np.asarray(p["w"], np.float64)
    outputs = len(p["b"]) if "b" in p else w.shape[1]
    y = w @ x if outputs < len(x) else x @ w
    return y + p.get("b", 0.0)


class Model:
    def __init__(self, params, num_actions, num_bins):
        self.p = {
            part: {name: {k: np.asarray(v, np.float64) for k, v in layer.items()}
                   for name, layer in layers.items()}
            for part, layers in params.items()
        }  # fmt: skip
        self.num_actions = num_actions
        self.bins = np.arange(num_bins) - (num_bins - 1) / 2

    def scalar(self, logits):
        return h_inverse(softmax(logits) @ self.bins)

    def layers(self, part, stem, x, final):
        names = sorted(n for n in self.p[part] if n.startswith(stem + "_"))
        for i, name in enumerate(names):
            x = linear(self.p[part][name], x)
            if final or i < len(names) - 1:
                x = np.maximum(x, 0)
        return x

    def represent(self, observation):
        return self.layers("representation", "representation", observation.reshape(-1), False)

    def dynamics(self, state, action):
        p = self.p["dynamics"]
        one_hot = np.eye(self.num_actions)[action]
        x = linear(p["state"], state) + one_hot @ p["action"]["w"]
        state = self.layers("dynamics", "dynamics", np.maximum(x, 0), False)
        return linear(p["reward"], self.layers("dynamics", "reward_trunk", state, True)), state

    def predict(self, state):
        trunk = self.layers("prediction", "trunk", state, True)
        return linear(self.p["prediction"]["policy"], trunk), linear(
            self.p["prediction"]["value"], trunk
        )

    def value(self, state):
        return self.scalar(self.predict(state)[1])

    def q(self, state, action, discount):
        reward, next_state = self.dynamics(state, action)
        return self.scalar(reward) + discount * self.value(next_state)


def huber(x):
    return 0.5 * x**2 if abs(x) <= 1 else abs(x) - 0.5


def quantile_loss(quantiles, tau, target):
    """Summed over quantiles, averaged over samples of the target."""
    loss = 0.0
    for z, t in zip(quantiles, tau):
        for y in target:
            loss += abs(t - (y < z)) * huber(y - z) / len(target)
    return loss


def implicit_quantile(p, features, tau):
    """One quantile of IQN at the level tau."""
    cosines = np.cos(np.pi * np.arange(64) * np.float64(tau))
    embedding = np.maximum(linear(p["embedding"], cosines), 0)
    x = np.maximum(np.asarray(features, np.float64), 0) * embedding
    return linear(p["output"], np.maximum(linear(p["hidden"], x), 0))[0]


def one_step_target(model, observation, discount):
    """p ~ pi exp(adv) by enumeration, and the advantages."""
    state = model.represent(observation)
    logits, _ = model.predict(state)
    adv = np.array([model.q(state, a, discount) for a in range(model.num_actions)])
    adv = adv - model.value(state)
    p = softmax(logits) * np.exp(adv)
    return p / p.sum(), adv


def n_step(rewards, values, start, length, terminated, discount, n):
    """z at step `start` of an episode of `length` transitions; values of its observations."""
    total, factor = 0.0, 1.0
    for t in range(start, start + n):
        if t >= length:
            break
        total += factor * rewards[t]
        factor *= discount
    end = min(start + n, length)
    if end == length and terminated:
        return total
    return total + factor * values[end]


WEIGHTS = {
    "binary": lambda adv: float(adv > 0),
    "exponential": lambda adv: min(np.exp(adv), 20.0),
    "always": lambda adv: 1.0,
}


def window_loss(
    theta, target, episode, start, imagined_actions, settings, *, regularize, operator=None,
    weighting="binary",
):  # fmt: skip
    """Loss parts of one window that begins at `start` of an episode.

    `operator(step)` gives (policy, value) at a step of the episode, for methods that search;
    None: the one-step target, bootstrapped from the network's value.
    """
    K, n, gamma = settings.unroll_steps, settings.td_steps, settings.discount
    observations, actions, rewards = (episode[k] for k in ("observation", "action", "reward"))
    length, terminated = len(actions), episode["terminated"]
    if operator is None:
        values = [target.value(target.represent(o)) for o in observations]
    else:
        values = [operator(t)[1] for t in range(length + 1)]
    parts = {"policy": 0.0, "value": 0.0, "reward": 0.0, "behavior": 0.0}
    state = theta.represent(observations[start])
    for k in range(K + 1):
        t = start + k
        logits, value_logits = theta.predict(state)
        log_pi, log_v = np.log(softmax(logits)), np.log(softmax(value_logits))
        ended = t >= length and terminated
        if t <= length or terminated:
            if ended:
                p, z = np.full(theta.num_actions, 1 / theta.num_actions), 0.0
            else:
                if operator is None:
                    p, adv = one_step_target(target, observations[t], gamma)
                else:
                    p = operator(t)[0]
                z = n_step(rewards, values, t, length, terminated, gamma, n)
            parts["policy"] += -p @ log_pi / (K + 1)
            parts["value"] += -phi(z, theta.bins) @ log_v / (K + 1)
        if regularize and t < length:
            weight = WEIGHTS[weighting](adv[actions[t]])
            parts["behavior"] += -weight * log_pi[actions[t]] / (K + 1)
        if k < K:
            reward_logits, state = theta.dynamics(state, imagined_actions[k])
            if t < length or terminated:
                u = rewards[t] if t < length else 0.0
                parts["reward"] += -phi(u, theta.bins) @ np.log(softmax(reward_logits)) / K
    return parts


def search(model, observation, discount, num_simulations, *, rescale):
    """pUCT (MuZero, Appendix B) as mctx counts, without noise: visits of the root's actions.

    `rescale`: over "siblings", as mctx does, over the "tree" (MuZero, eq. 5), or None.
    """

    def node(state):
        logits, _ = model.predict(state)
        value = model.value(state)
        return {"state": state, "prior": softmax(logits), "value": value, "visits": 1, "next": {}}

    def values(of):
        return {a: reward + discount * child["value"] for a, (reward, child) in of["next"].items()}

    def everywhere(of):
        return [*values(of).values(), *(q for _, x in of["next"].values() for q in everywhere(x))]

    def score(of, action):
        q = values(of)
        among = [of["value"], *(everywhere(root) if rescale == "tree" else q.values())]
        low, high = min(among), max(among)
        stretch = max(high - low, 1e-8) if rescale else 1.0
        untried = (of["value"] - low) / stretch if rescale == "tree" else 0.0
        visits = of["next"][action][1]["visits"] if action in q else 0
        weight = 1.25 + np.log((of["visits"] + 19652 + 1) / 19652)
        explore = np.sqrt(of["visits"]) * weight * of["prior"][action] / (visits + 1)
        return ((q[action] - low) / stretch if action in q else untried) + explore

    root = node(model.represent(observation))
    for _ in range(num_simulations):
        path, now = [], root
        while True:
            action = int(np.argmax([score(now, a) for a in range(model.num_actions)]))
            path.append((now, action))
            if action not in now["next"]:
                break
            now = now["next"][action][1]
        reward, state = model.dynamics(now["state"], action)
        now["next"][action] = (model.scalar(reward), node(state))
        value = now["next"][action][1]["value"]
        for of, action in reversed(path):
            value = of["next"][action][0] + discount * value
            of["value"] = (of["value"] * of["visits"] + value) / (of["visits"] + 1)
            of["visits"] += 1
    return np.array(
        [root["next"][a][1]["visits"] if a in root["next"] else 0 for a in range(model.num_actions)]
    ), root["value"]
