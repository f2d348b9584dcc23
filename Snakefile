# datasets -> runs -> results -> figures -> gallery, for one profile (see profiles/).
# Start it with `make reproduce`, which holds the clone's lock and names the profile.
import functools
import json
import logging
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from reproduction import (
    adoption, captions, claims, devices, fingerprint, gallery, plan, processes, profiles,
)  # fmt: skip
from unplugged.common import hashing
from unplugged.runs import benchmarks

# A library that runs imports gives the root logger a handler: each line would come twice.
logging.getLogger("snakemake.logging").propagate = False

processes.watch(Path(workflow.basedir))
devices.leave()

# Everything in the profile is checked here, before any work begins, also for Snakemake alone.
try:
    COLLECTIONS, EXPERIMENTS, TRAINERS, SPECS = plan.plan(
        {key: value for key, value in config.items() if key != "draw_only"}
    )
except profiles.ProfileError as error:
    raise WorkflowError(str(error)) from None
PROFILE = config["profile"]
DRAW_ONLY = bool(config.get("draw_only", False))  # figures from committed results, no training
RUNS = f"runs/{PROFILE}"
RESULTS = f"results/{PROFILE}"
FIGURES = f"figures/{PROFILE}"
GALLERY = FIGURES if PROFILE in gallery.UNCOMMITTED else "figures"

of_notebook = functools.cache(fingerprint.of_notebook)  # Snakemake asks once a job.

# One single-threaded process a core is the fastest use of a CPU.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
# A program is compiled once for all runs of a clone.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.abspath("runs/.compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


# Runs the notebook that is a rule's first input headless; its executed copy is the log.
PAPERMILL = (
    "python -m reproduction.job {input[0]:q} {log.notebook:q} {log.text:q} {params.yaml:q} "
    f"{shlex.quote(RUNS)} {{output:q}}"
)
# What draws, or records with small networks, leaves accelerators to the others.
ON_CPU = f"JAX_PLATFORMS=cpu {PAPERMILL}"

# Results of runs in one file, without a process that imports jax.
GATHER_ROWS = "python -m reproduction.gather rows {output[0]:q} {input:q}"
GATHER = (
    "python -m reproduction.gather rows {output.rows:q} {input.rows:q} && "
    "python -m reproduction.gather records {output.provenance:q} {params.records:q}"
)


def any_of(names):
    """A regular expression that matches these names, and nothing if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def named(names, paths):
    return [f"{name}={path}" for name, path in zip(names, paths)]


def logs(name):
    return {"notebook": f"{RUNS}/{name}.ipynb", "text": f"{RUNS}/{name}.log"}


def like(rule):
    """Resources that a cluster's profile sets for a rule, for those whose names it cannot know."""
    found = workflow.resource_settings.overwrite_resources.get(rule, {})
    return {name: resource.value for name, resource in found.items()}


# What a cluster's time limit cuts off goes on where it was, in another job.
RETRIES = 10 if like("train") else 1


# --- What there is to do -----------------------------------------------------------------

def lacks_checkpoints(experiment, run):
    return adoption.lacks_checkpoints(Path(RUNS, experiment, run))


def with_checkpoints(wanted, result):
    """The runs as (experiment, run); none if some were adopted, which leaves a result as it is."""
    adopted = [f"{e}/{run}" for e, run in wanted if lacks_checkpoints(e, run)]
    if not adopted or DRAW_ONLY:
        return wanted
    print(f"{result} is not made: {len(adopted)} of its runs, such as {adopted[0]}, have no "
          f"checkpoints; delete their folders in {RUNS} to train them", file=sys.stderr)
    return []


def listed(given):
    """What may stand alone or in a list, in a list."""
    return given if isinstance(given, list) else [given]


def picked(part):
    """Runs of a section's experiments, by its methods and environments."""
    return [
        (experiment, run)
        for experiment in part["experiments"]
        for run in EXPERIMENTS[experiment]
        if SPECS[experiment, run].method in part["methods"]
        and SPECS[experiment, run].environment in part["environments"]
    ]


# Runs whose last checkpoints act in several ways: how many episodes, by the result's name.
EVALUATIONS = {}
for part in listed(config.get("evaluation", [])):
    result = f"{profiles.study(part['experiments'][0])}_selectors"
    found = dict.fromkeys(picked(part), part["episodes"])
    EVALUATIONS[result] = {**EVALUATIONS.get(result, {}), **found}
EVALUATED = {name: with_checkpoints(list(found), name) for name, found in EVALUATIONS.items()}
EPISODES = {run: count for found in EVALUATIONS.values() for run, count in found.items()}

# Runs whose checkpoints are scored offline.
SCORED = config.get("selection", {}).get("experiment")
SELECTED = with_checkpoints(
    [(SCORED, run) for run in EXPERIMENTS.get(SCORED, [])], "bsuite_selection"
)

# Runs whose checkpoints' returns are estimated offline, to be held against the environment.
ESTIMATION = config.get("estimation", {})
ESTIMATED = {}
for name in ESTIMATION.get("experiments", []):
    found = [(name, run) for run in EXPERIMENTS[name]]
    ESTIMATED.setdefault(f"{profiles.study(name)}_estimates", []).extend(found)
ESTIMATED = {name: with_checkpoints(found, name) for name, found in ESTIMATED.items()}
JUDGING = [f"unplugged.runs.{name}" for name in ("selection", "ope", "heldout", "decisions")]

# Whose runs' training is timed: experiments and their environments, by the result's name.
TIMING = config.get("timing", {})
TIMED = {}
for experiment in listed(TIMING.get("experiment", [])):
    worlds = {SPECS[experiment, run].environment for run in EXPERIMENTS[experiment]}
    TIMED.setdefault(f"{profiles.study(experiment)}_times", []).extend(
        (experiment, world) for world in sorted(worlds)
    )

# World models, whose dreams are drawn.
DREAMT = with_checkpoints(
    [("minatar_worlds", run) for run in EXPERIMENTS.get("minatar_worlds", [])], "minatar_frames"
)

# Agents that are seen at play, by the name of what shows them. It needs checkpoints.
VIDEOS = {} if DRAW_ONLY else config.get("videos", {})
WATCHED = {}
for experiment, run in picked(VIDEOS) if VIDEOS else []:
    WATCHED.setdefault(f"{profiles.study(experiment)}_agents", []).append((experiment, run))
WATCHED = {name: with_checkpoints(found, name) for name, found in WATCHED.items()}
WATCHED = {name: found for name, found in WATCHED.items() if found}

# Experiments whose runs are so small that one process trains them all, one after the other.
TOGETHER = [name for name in EXPERIMENTS if config["experiments"][name].get("together", False)]

# Benchmarks of which datasets are recorded, and statistics written.
RECORDED = sorted({collection.benchmark for collection in COLLECTIONS.values()})


# Datasets that come with the repository.
COMMITTED = Path("results", profiles.RECORDINGS)

# Recordings of single frames are folders, and the others files.
OF_FRAMES = [name for name, collection in COLLECTIONS.items() if collection.file == name]


def recorded_with(name):
    """What a recording's numbers depend on."""
    recorder = benchmarks.get(COLLECTIONS[name].benchmark).recorder
    return hashing.of_modules([recorder.train.__module__])


# Figures of a notebook: the experiments of which each needs results, what else it reads from
# results/ and draws into figures/. Those whose experiments a profile lacks are left out. A changed
# caption redraws, as changed code does. Where one notebook draws several studies, an entry has the
# notebook and its parameters.
NOTEBOOKS = {
    "01_first_figure": {
        "experiments": ["quick_catch"],
        "draws": ["first_figure"],
        "tables": ["first_figure"],
    },
    "30_bsuite_curves": {
        "experiments": ["bsuite_curves"],
        "also": ["bsuite_table2"],
        "draws": ["bsuite_curves", "bsuite_returns", "bsuite_iqm", "bsuite_profiles"],
        "tables": ["bsuite_returns"],
    },
    "31_bsuite_datasets": {
        "reads": ["bsuite_returns.csv", "bsuite_statistics.csv"],
        "draws": ["bsuite_datasets"],
        "tables": ["rosmo_table5", "rosmo_table6"],
    },
    "32_bsuite_fractions": {
        "experiments": ["bsuite_fractions", "bsuite_curves"],
        "draws": ["bsuite_fractions"],
        "tables": ["bsuite_fractions"],
    },
    "33_bsuite_noise": {
        "experiments": ["bsuite_noise", "bsuite_curves"],
        "draws": ["bsuite_noise"],
        "tables": ["rosmo_table1"],
    },
    "34_bsuite_capacity": {
        "experiments": ["bsuite_capacity", "bsuite_fractions"],
        "draws": ["bsuite_capacity", "bsuite_capacity_curves"],
        "tables": ["bsuite_capacity"],
    },
    "35_sepsis": {
        "experiments": ["sepsis_curves"],
        "also": ["sepsis_estimates"],
        "draws": ["sepsis_curves"],
    },
    "36_bsuite_search": {
        "experiments": ["bsuite_search", "bsuite_curves"],
        "draws": ["bsuite_search"],
    },
    "37_bsuite_selection": {
        "experiments": ["bsuite_holdout", "bsuite_curves"],
        "reads": ["bsuite_selection.csv"],
        "draws": ["bsuite_selection"],
        "tables": ["bsuite_best", "bsuite_selection"],
    },
    "39_offline_estimates": {
        "experiments": ["bsuite_estimates"],
        "also": ["minatar_estimates"],
        "draws": ["offline_estimates"],
        "tables": ["offline_estimates"],
    },
    "38_bsuite_table2": {
        "experiments": ["bsuite_table2", "bsuite_curves"],
        "tables": ["bsuite_table2"],
    },
    "40_minatar_datasets": {
        "experiments": ["minatar_curves"],
        "reads": ["minatar_returns.csv"],
        "draws": ["minatar_datasets"],
        "tables": ["minatar_datasets"],
    },
    "41_minatar_curves": {
        "experiments": ["minatar_curves", "minatar_times"],
        "also": ["minatar_selectors"],
        "draws": ["minatar_curves", "minatar_games", "minatar_improvement"],
        "tables": ["minatar_returns", "minatar_overall"],
    },
    "42_minatar_selectors": {
        "experiments": ["minatar_selectors", "minatar_curves"],
        "also": ["minatar_losses"],  # the same runs while training; kept beside the others
        "draws": ["minatar_selectors"],
        "tables": ["minatar_selectors", "minatar_acting"],
    },
    "43_minatar_ablations": {
        "experiments": [
            "minatar_ablations", "minatar_curves", "minatar_fractions", "minatar_onestep",
        ],
        "draws": ["minatar_ablations"],
    },
    "44_minatar_onestep": {
        "experiments": ["minatar_onestep", "minatar_curves", "minatar_fractions"],
        "draws": ["minatar_onestep"],
    },
    "45_minatar_low_data": {
        "experiments": ["minatar_fractions", "minatar_curves"],
        "draws": ["minatar_low_data"],
        "tables": ["minatar_low_data"],
    },
    "46_minatar_networks": {
        "experiments": ["minatar_resnet", "minatar_curves"],
        "draws": ["minatar_networks"],
    },
    "47_minatar_worlds": {
        "experiments": ["minatar_worlds"],
        "reads": ["minatar_frames.csv", "minatar_errors.csv"],
        "draws": ["minatar_worlds"],
    },
    # The longer runs, by the same notebooks.
    "41_pixels_curves": {
        "notebook": "41_minatar_curves",
        "parameters": {"study": "pixels"},
        "experiments": ["pixels_curves"],
        "also": ["pixels_baselines", "pixels_selectors", "pixels_times"],
        "draws": ["pixels_curves", "pixels_games", "pixels_improvement"],
        "tables": ["pixels_returns", "pixels_overall"],
    },
    "42_pixels_selectors": {
        "notebook": "42_minatar_selectors",
        "parameters": {"study": "pixels"},
        "experiments": ["pixels_selectors", "pixels_curves"],
        "also": ["pixels_losses"],
        "draws": ["pixels_selectors"],
        "tables": ["pixels_selectors", "pixels_acting"],
    },
    "43_pixels_ablations": {
        "notebook": "43_minatar_ablations",
        "parameters": {"study": "pixels"},
        "experiments": ["pixels_fractions", "pixels_curves"],
        "draws": ["pixels_ablations"],
    },
    "45_pixels_low_data": {
        "notebook": "45_minatar_low_data",
        "parameters": {"study": "pixels"},
        "experiments": ["pixels_fractions", "pixels_curves"],
        "also": ["pixels_baselines"],
        "draws": ["pixels_low_data"],
        "tables": ["pixels_low_data"],
    },
    "48_pixels_imagined": {
        "notebook": "48_minatar_imagined",
        "experiments": ["minatar_imagined", "pixels_curves"],
        "also": ["pixels_baselines"],
        "tables": ["pixels_imagined"],
    },
    "49_pixels_start": {
        "experiments": ["pixels_start", "pixels_curves"],
        "also": ["pixels_search"],
        "draws": ["pixels_start"],
    },
    "49_pixels_search": {
        "notebook": "49_pixels_start",
        "parameters": {"experiment": "pixels_search"},
        "experiments": ["pixels_search", "pixels_curves"],
        "also": ["pixels_start"],
        "draws": ["pixels_search"],
    },
    "50_online_budgets": {
        "experiments": ["online_fractions"],
        "draws": ["online_scaling"],
    },
    "51_online_demonstrations": {
        "experiments": ["online_demonstrations", "online_fractions"],
        "draws": ["online_demonstrations"],
    },
    "52_online_exploitation": {
        "experiments": ["online_exploitation"],
        "draws": ["online_exploitation"],
    },
    "60_control": {
        "experiments": ["control_curves"],
        "draws": ["control_curves"],
        "tables": ["control_table3", "control_table4"],
    },
    "61_control_ablations": {
        "experiments": ["control_ablations", "control_curves"],
        "draws": ["control_ablations"],
        "tables": ["control_ablations"],
    },
    "70_atari_curves": {
        "experiments": ["atari_curves"],
        "draws": ["atari_curves"],
        "tables": ["atari_table8", "atari_overall"],
    },
    "80_claims": {  # decides what can be decided from the experiments that there are
        "experiments": ["bsuite_curves"],
        "also": [name for name in claims.EXPERIMENTS if name != "bsuite_curves"],
        "tables": ["claims"],
        "writes": ["claims.csv"],
    },
}


def is_there(name):
    """Whether results can be had: from runs, or as they are committed."""
    made = {
        **EVALUATED, **TIMED, **ESTIMATED, "bsuite_selection": SELECTED, "minatar_frames": DREAMT,
    }  # fmt: skip
    if not DRAW_ONLY and (name in EXPERIMENTS or made.get(name)):
        return True
    return (DRAW_ONLY or name in made) and os.path.exists(f"{RESULTS}/{name}.csv")


def can_be_recorded(name):
    """Whether a CSV about recordings is there, or will be; others are not asked about here."""
    benchmark, _, kind = name.rpartition("_")
    recorded = DRAW_ONLY or benchmark in RECORDED or os.path.exists(f"{RESULTS}/{name}")
    return kind not in ("returns.csv", "statistics.csv") or recorded


def dataset_files(experiments):
    """Where the two ends of these experiments' normalised scores stand, for those that have one."""
    chosen = [spec for (name, _), spec in SPECS.items() if name in experiments]
    recorded = [spec for spec in chosen if DRAW_ONLY or spec.benchmark in RECORDED]
    found = {f"{RESULTS}/{x.benchmark}_statistics.csv" for x in recorded if x.of_benchmark.recorder}
    if any(COMMITTED == Path(getattr(spec, "dataset", "")).parent for spec in chosen):
        found.update(map(str, COMMITTED.glob("*_statistics.csv")))
    return sorted(found)


def read_by(parts):
    """What a figure notebook reads beside the results of experiments."""
    reads = [f"{RESULTS}/{name}" for name in parts.get("reads", [])]
    return dataset_files(parts.get("experiments", [])) + reads


DRAWN = {}
for notebook, parts in NOTEBOOKS.items():
    missing = [name for name in parts.get("experiments", []) if not is_there(name)]
    if DRAW_ONLY and not missing:  # Snakemake would leave the old figure, and say nothing.
        missing = [path for path in read_by(parts) if not os.path.exists(path)]
    else:
        scores = ("bsuite_selection", "minatar_frames")
        read = [name for name in scores if f"{name}.csv" in parts.get("reads", [])]
        missing += [name for name in read if not is_there(name)]
        missing += [name for name in parts.get("reads", []) if not can_be_recorded(name)]
    if missing:
        # Of what a profile has nothing of, nothing needs to be said.
        if not set(parts.get("experiments", [])) <= set(missing):
            without = ", ".join(missing)
            print(f"{notebook} is not drawn: no {without} in profile {PROFILE}", file=sys.stderr)
        continue
    experiments_read = parts.get("experiments", []) + list(filter(is_there, parts.get("also", [])))
    DRAWN[notebook] = {**parts, "experiments": experiments_read}


# A fresh clone has committed results but no runs: they are asked for by name, or nothing would
# be trained; when only drawing they are not.
TRAINED = [] if DRAW_ONLY else [
    f"{RUNS}/{experiment}/{run}/results.csv"
    for experiment, found in EXPERIMENTS.items()
    for run in found
]


rule all:
    input:
        f"{GALLERY}/README.md",
        TRAINED,


def data_of(experiment, run):
    """What a run that is trained here learns from; one whose results were adopted needs nothing."""
    if adoption.is_adopted(Path(RUNS, experiment, run)):
        return []
    needed = plan.needs(EXPERIMENTS[experiment][run], COLLECTIONS)
    # A checkout gives committed files any time.
    return [ancient(path) if Path(path).parent == COMMITTED else path for path in needed]


# --- Results -----------------------------------------------------------------------------

if not DRAW_ONLY:

    rule collect:
        input:
            ancient("notebooks/10_collect.ipynb"),
        output:
            data=f"{RUNS}/datasets/{{dataset}}.npz",
            statistics=f"{RUNS}/datasets/{{dataset}}.statistics.csv",
            returns=f"{RUNS}/datasets/{{dataset}}.returns.csv",
        wildcard_constraints:
            dataset=any_of(set(COLLECTIONS) - set(OF_FRAMES)),
        params:
            yaml=lambda w: json.dumps(
                {
                    **COLLECTIONS[w.dataset].parameters,
                    **config["collection"],
                    "folder": f"{RUNS}/datasets",
                    "keep_partial": True,  # until Snakemake knows that it is done
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/10_collect.ipynb"),
                recorded_with(w.dataset),
            ],
        retries: RETRIES
        log:
            **logs("datasets/{dataset}"),
        shell:
            ON_CPU

    # The folder itself is no output: those are deleted before a job and when it fails, and what is
    # recorded or imported so far would be lost. What is named here is written last.
    rule collect_frames:
        input:
            lambda w: ancient(f"notebooks/{COLLECTIONS[w.dataset].notebook}.ipynb"),
        output:
            statistics=f"{RUNS}/datasets/{{dataset}}.statistics.csv",
            returns=f"{RUNS}/datasets/{{dataset}}.returns.csv",
        wildcard_constraints:
            dataset=any_of(OF_FRAMES),
        params:
            yaml=lambda w: json.dumps(
                {
                    **COLLECTIONS[w.dataset].parameters,
                    **config["collection"],
                    "folder": f"{RUNS}/datasets",
                }
            ),
            code=lambda w: of_notebook(f"notebooks/{COLLECTIONS[w.dataset].notebook}.ipynb"),
            # An import needs no accelerator; empty, JAX chooses.
            platform=lambda w: "cpu"
            if COLLECTIONS[w.dataset].notebook == "13_import_atari"
            else os.environ.get("JAX_PLATFORMS", ""),
        retries: RETRIES
        log:
            **logs("datasets/{dataset}"),
        shell:
            "JAX_PLATFORMS={params.platform:q} " + PAPERMILL

    rule train:
        input:
            notebook=lambda w: ancient(f"notebooks/{TRAINERS[w.experiment]}.ipynb"),
            data=lambda w: data_of(w.experiment, w.run),
        output:
            rows=f"{RUNS}/{{experiment}}/{{run}}/results.csv",
            provenance=f"{RUNS}/{{experiment}}/{{run}}/provenance.json",
        wildcard_constraints:
            experiment=any_of(set(EXPERIMENTS) - set(TOGETHER)),
        params:
            yaml=lambda w: json.dumps(
                {
                    **EXPERIMENTS[w.experiment][w.run],
                    "folder": f"{RUNS}/{w.experiment}/{w.run}",
                }
            ),
            code=lambda w: [
                of_notebook(f"notebooks/{TRAINERS[w.experiment]}.ipynb"),
            ],
        retries: RETRIES
        log:
            **logs("{experiment}/{run}/executed"),
        shell:
            PAPERMILL

    for experiment in TOGETHER:
        # Results that were adopted stay: a rule's outputs are deleted before it runs.
        own = [
            run
            for run in EXPERIMENTS[experiment]
            if not adoption.is_adopted(Path(RUNS, experiment, run))
        ]
        if not own:
            continue

        rule:
            name:
                f"train_{experiment}"
            input:
                notebook=ancient("notebooks/25_train_together.ipynb"),
                data=sorted(
                    {
                        path
                        for run in own
                        for path in plan.needs(EXPERIMENTS[experiment][run], COLLECTIONS)
                    }
                ),
            output:
                [f"{RUNS}/{experiment}/{run}/results.csv" for run in own],
                [f"{RUNS}/{experiment}/{run}/provenance.json" for run in own],
            params:
                yaml=json.dumps(
                    {
                        "kind": config["experiments"][experiment].get("kind", "offline"),
                        "runs": {run: EXPERIMENTS[experiment][run] for run in own},
                        "folder": f"{RUNS}/{experiment}",
                    }
                ),
                code=of_notebook("notebooks/25_train_together.ipynb"),
            retries: RETRIES
            resources:
                **like("train"),
            log:
                **logs(f"{experiment}/executed"),
            shell:
                PAPERMILL

    rule select:
        input:
            notebook=ancient("notebooks/22_select.ipynb"),
            rows=f"{RUNS}/{{experiment}}/{{run}}/results.csv",
        output:
            f"{RUNS}/{{experiment}}/{{run}}/selection.csv",
        params:
            yaml=lambda w: json.dumps(
                {
                    **EXPERIMENTS[w.experiment][w.run],
                    "folder": f"{RUNS}/{w.experiment}/{w.run}",
                    "fqe_updates": config["selection"]["fqe_updates"],
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/22_select.ipynb"),
                hashing.of_modules(JUDGING, alone=True),
            ],
        log:
            **logs("{experiment}/{run}/selected"),
        shell:
            PAPERMILL

    rule estimate:
        input:
            notebook=ancient("notebooks/28_estimate.ipynb"),
            rows=f"{RUNS}/{{experiment}}/{{run}}/results.csv",
        output:
            rows=f"{RUNS}/{{experiment}}/{{run}}/estimates.csv",
            provenance=f"{RUNS}/{{experiment}}/{{run}}/estimates.provenance.json",
        params:
            yaml=lambda w: json.dumps(
                {
                    **EXPERIMENTS[w.experiment][w.run],
                    "folder": f"{RUNS}/{w.experiment}/{w.run}",
                    "fqe_updates": ESTIMATION["updates"],
                    "clone_updates": ESTIMATION["updates"],
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/28_estimate.ipynb"),
                hashing.of_modules(JUDGING, alone=True),
            ],
        log:
            **logs("{experiment}/{run}/estimated"),
        shell:
            PAPERMILL

    rule dream:
        input:
            notebook=ancient("notebooks/27_dream.ipynb"),
            rows=f"{RUNS}/{{experiment}}/{{run}}/results.csv",
        output:
            frames=f"{RUNS}/{{experiment}}/{{run}}/frames.csv",
            errors=f"{RUNS}/{{experiment}}/{{run}}/errors.csv",
        params:
            yaml=lambda w: json.dumps(
                {
                    "world": f"{RUNS}/{w.experiment}/{w.run}",
                    "folder": f"{RUNS}/{w.experiment}/{w.run}",
                    "seed": EXPERIMENTS[w.experiment][w.run]["seeds"][0],
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/27_dream.ipynb"),
                hashing.of_modules(["unplugged.runs.dreams"], alone=True),
            ],
        log:
            **logs("{experiment}/{run}/dreamt"),
        shell:
            PAPERMILL

    if DREAMT:

        rule dream_results:
            input:
                [f"{RUNS}/{experiment}/{run}/{{kind}}.csv" for experiment, run in DREAMT],
            output:
                f"{RESULTS}/minatar_{{kind}}.csv",
            wildcard_constraints:
                kind="frames|errors",
            shell:
                GATHER_ROWS

    if SELECTED:

        rule selection_results:
            input:
                [f"{RUNS}/{experiment}/{run}/selection.csv" for experiment, run in SELECTED],
            output:
                f"{RESULTS}/bsuite_selection.csv",
            shell:
                GATHER_ROWS

    rule evaluate:
        input:
            notebook=ancient("notebooks/23_evaluate.ipynb"),
            rows=f"{RUNS}/{{experiment}}/{{run}}/results.csv",
        output:
            rows=f"{RUNS}/{{experiment}}/{{run}}/selectors.csv",
            provenance=f"{RUNS}/{{experiment}}/{{run}}/selectors.provenance.json",
        params:
            yaml=lambda w: json.dumps(
                {
                    **EXPERIMENTS[w.experiment][w.run],
                    "folder": f"{RUNS}/{w.experiment}/{w.run}",
                    "episodes": EPISODES[w.experiment, w.run],
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/23_evaluate.ipynb"),
                hashing.of_modules(
                    ["unplugged.planning.acting", "unplugged.runs.evaluation"], alone=True
                ),
            ],
        log:
            **logs("{experiment}/{run}/evaluated"),
        shell:
            PAPERMILL

    for kind, results in {"selectors": EVALUATED, "estimates": ESTIMATED}.items():
        for result, played in results.items():
            if not played:
                continue

            rule:
                name:
                    f"gather_{result}"
                input:
                    rows=[f"{RUNS}/{experiment}/{run}/{kind}.csv" for experiment, run in played],
                    provenance=[
                        f"{RUNS}/{experiment}/{run}/{kind}.provenance.json"
                        for experiment, run in played
                    ],
                output:
                    rows=f"{RESULTS}/{result}.csv",
                    provenance=f"{RESULTS}/{result}.provenance.json",
                params:
                    records=lambda w, input, played=played: named(
                        map("/".join, played), input.provenance
                    ),
                shell:
                    GATHER

    for name, watched in WATCHED.items():

        rule:
            name:
                f"watch_{name}"
            input:
                ancient("notebooks/71_agents.ipynb"),
                ancient(f"{captions.FOLDER}/71_agents.yaml"),
                [f"{RUNS}/{experiment}/{run}/results.csv" for experiment, run in watched],
            output:
                multiext(f"{FIGURES}/{name}", ".gif", ".json"),
            params:
                yaml=json.dumps(
                    {
                        "runs": [f"{RUNS}/{experiment}/{run}" for experiment, run in watched],
                        "results": RESULTS,
                        "figures": FIGURES,
                        "name": name,
                        "steps": VIDEOS["steps"],
                    }
                ),
                code=of_notebook("notebooks/71_agents.ipynb"),
                captions=captions.load("71_agents"),
            resources:
                **like("watch"),
            log:
                **logs(f"figures/{name}"),
            shell:
                PAPERMILL

    rule time:
        input:
            notebook=ancient("notebooks/24_time.ipynb"),
            data=lambda w: sorted(
                {
                    path
                    for run in EXPERIMENTS[w.experiment].values()
                    if run["environment"] == w.environment
                    for path in plan.needs(run, COLLECTIONS)
                }
            ),
        output:
            rows=f"{RUNS}/times/{{experiment}}/{{environment}}.csv",
            provenance=f"{RUNS}/times/{{experiment}}/{{environment}}.provenance.json",
        threads: workflow.cores  # so that nothing of ours runs beside it
        params:
            yaml=lambda w: json.dumps(
                {
                    "runs": [
                        run
                        for run in EXPERIMENTS[w.experiment].values()
                        if run["environment"] == w.environment
                    ],
                    **{name: value for name, value in TIMING.items() if name != "experiment"},
                    "target": f"{RUNS}/times/{w.experiment}/{w.environment}",
                }
            ),
            code=lambda w: [
                of_notebook("notebooks/24_time.ipynb"),
                hashing.of_modules(["unplugged.runs.timing"], alone=True),
            ],
        log:
            **logs("times/{experiment}/{environment}"),
        shell:
            PAPERMILL

    for result, timed in TIMED.items():

        rule:
            name:
                f"gather_{result}"
            input:
                rows=[f"{RUNS}/times/{experiment}/{world}.csv" for experiment, world in timed],
                provenance=[
                    f"{RUNS}/times/{experiment}/{world}.provenance.json"
                    for experiment, world in timed
                ],
            output:
                rows=f"{RESULTS}/{result}.csv",
                provenance=f"{RESULTS}/{result}.provenance.json",
            params:
                records=lambda w, input, timed=timed: named(
                    [f"{experiment}/{world}" for experiment, world in timed], input.provenance
                ),
            shell:
                GATHER

    rule results:
        input:
            rows=lambda w: [
                f"{RUNS}/{w.experiment}/{run}/results.csv" for run in EXPERIMENTS[w.experiment]
            ],
            provenance=lambda w: [
                f"{RUNS}/{w.experiment}/{run}/provenance.json"
                for run in EXPERIMENTS[w.experiment]
            ],
        output:
            rows=f"{RESULTS}/{{experiment}}.csv",
            provenance=f"{RESULTS}/{{experiment}}.provenance.json",
        wildcard_constraints:
            experiment=any_of(EXPERIMENTS),
        params:
            records=lambda w, input: named(EXPERIMENTS[w.experiment], input.provenance),
        shell:
            GATHER

    rule dataset_results:
        input:
            lambda w: [
                f"{RUNS}/datasets/{name}.{w.kind}.csv"
                for name, collection in COLLECTIONS.items()
                if collection.benchmark == w.benchmark
            ],
        output:
            f"{RESULTS}/{{benchmark}}_{{kind}}.csv",
        wildcard_constraints:
            benchmark=any_of(RECORDED),
            kind="returns|statistics",
        shell:
            GATHER_ROWS

    # Not sooner: a recording that was killed before Snakemake noted its end is made again, from it.
    onsuccess:
        for path in Path(RUNS, "datasets").glob("*.partial"):
            if path.with_suffix(".npz").exists():
                shutil.rmtree(path)


# --- Figures -----------------------------------------------------------------------------

for figures, parts in DRAWN.items():
    notebook = parts.get("notebook", figures)

    rule:
        name:
            f"draw_{figures}"
        input:
            ancient(f"notebooks/{notebook}.ipynb"),
            ancient(f"{captions.FOLDER}/{notebook}.yaml"),
            read_by(parts),
            [
                f"{RESULTS}/{experiment}{suffix}"
                for experiment in parts.get("experiments", [])
                for suffix in (".csv", ".provenance.json")
            ],
            ["results/claims.csv", "results/claims_own.csv"],
        output:
            [
                f"{FIGURES}/{name}.{suffix}"
                for name in parts.get("draws", [])
                for suffix in ("png", "pdf", "json")
            ],
            [
                f"{FIGURES}/{name}.table.{suffix}"
                for name in parts.get("tables", [])
                for suffix in ("csv", "md", "tex", "json")
            ],
            [f"{RESULTS}/{name}" for name in parts.get("writes", [])],
        params:
            yaml=json.dumps(
                {"results": RESULTS, "figures": FIGURES, **parts.get("parameters", {})}
            ),
            code=lambda w, notebook=notebook: of_notebook(f"notebooks/{notebook}.ipynb"),
            captions=lambda w, notebook=notebook: captions.load(notebook),
        log:
            **logs(f"figures/{figures}"),
        shell:
            ON_CPU


rule gallery:
    input:
        [
            f"{FIGURES}/{name}.json"
            for parts in DRAWN.values()
            for name in parts.get("draws", [])
            + [f"{table}.table" for table in parts.get("tables", [])]
        ],
        [f"{FIGURES}/{name}.json" for name in WATCHED],
    output:
        f"{GALLERY}/README.md",
    params:
        folder=GALLERY,
    shell:
        "python -m reproduction.gallery {params.folder:q}"
