"""A checkpoint is what was saved, or it is named and set aside; none is trained from silently."""

import json
import random
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unplugged import checkpoints, files

SEED = (0,)
IDENTITY = {"method": "rosmo", "settings": {"td_steps": 3}, "program": {"training": "a"},
            "versions": {"jaxlib": "1"}}  # fmt: skip
KNOWN = {"method": "rosmo", "settings": {"td_steps": 3}}


def state(seed=0, shift=0.0):
    return {
        "w": jnp.arange(8.0) + shift,
        "key": jax.random.key(seed),
        "updates": jnp.zeros([], int),
    }


def rows(*updates):
    return [{"seed": 0, "update": update, "mean_return": update / 8} for update in updates]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder for checkpoints of updates 20 and 40."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints.keep_or_set_aside(folder, IDENTITY, KNOWN)
    own = checkpoints.of_group(folder, SEED, keep=False)
    for update in (0, 20, 40):
        own.save(update, state(shift=update), rows(0, update))
    own.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "checkpoints")


def last(folder):
    own = checkpoints.of_group(folder, SEED, keep=False)
    try:
        return own.last(state())
    finally:
        own.close()


def flip(path, rng):
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def test_the_last_two_are_kept_and_restored_whole(folder):
    group = folder / "seed_0"
    assert sorted(path.name for path in group.iterdir()) == ["20", "40"]
    update, found, seen = last(folder)
    assert update == 40 and seen == rows(0, 40)
    np.testing.assert_array_equal(found["w"], state(shift=40)["w"])
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(state()["key"])).all()
    assert not list(folder.rglob(f"*{files.TEMPORARY}*"))


def test_every_flipped_bit_is_noticed_in_every_file(folder, tmp_path):
    rng, checkpoint = random.Random(0), folder / "seed_0" / "40"
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    assert len(paths) > 8 and checkpoints.damage(checkpoint) is None
    for path in paths:
        whole = path.read_bytes()
        for _ in range(4):
            flip(path, rng)
            wrong = checkpoints.damage(checkpoint)
            name = path.relative_to(checkpoint).as_posix()
            assert wrong and (wrong.startswith(name) or name == checkpoints.SUMS), name
            path.write_bytes(whole)
        for shorter in (whole[: len(whole) // 2], b""):
            path.write_bytes(shorter)
            assert checkpoints.damage(checkpoint)
        path.unlink()
        assert checkpoints.damage(checkpoint)
        path.write_bytes(whole)
        (checkpoint / "more").write_text("x")
        assert checkpoints.damage(checkpoint) == "more is not what was saved"
        (checkpoint / "more").unlink()
    assert checkpoints.damage(checkpoint) is None


def edit_rows(checkpoint):
    path = checkpoint / "rows" / "metadata"
    path.write_text(path.read_text().replace("5.0", "99.0"))


@pytest.mark.parametrize(
    "harm, why",
    [
        (edit_rows, "rows/metadata is not what was saved"),
        (lambda of: shutil.rmtree(of / "state"), "SHA256SUMS is not what was saved"),
        (lambda of: (of / checkpoints.SUMS).unlink(), "SHA256SUMS is missing"),
        (lambda of: [shutil.rmtree(of), of.mkdir()], "SHA256SUMS is missing"),
        (lambda of: [shutil.rmtree(of), of.write_text("x")], "it is no folder"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_it_goes_on(folder, capsys, harm, why):
    checkpoint = folder / "seed_0" / "40"
    harm(checkpoint)
    with pytest.raises(checkpoints.DamagedError, match=f"40 is damaged .*{why}.*; delete that"):
        list(checkpoints.states(folder, SEED, lambda seed: state(seed), every=False))
    update, found, seen = last(folder)
    said = capsys.readouterr().out
    assert update == 20 and seen == rows(0, 20) and said.count("\n") == 1
    np.testing.assert_array_equal(found["w"], state(shift=20)["w"])
    assert re.search(f"40 is damaged .*{why}.*; going on from update 20", said)
    assert (folder / "damaged-seed_0-40").exists() and "damaged-seed_0-40, which can" in said
    assert not checkpoint.exists()


@pytest.mark.parametrize("source, target", [("seed_0/40", "seed_0/60"), ("seed_0/40", "seed_1/40")])
def test_a_copied_one_is_not_taken_for_another(folder, capsys, source, target):
    shutil.copytree(folder / source, folder / target)
    own = checkpoints.Checkpoints(folder / target.split("/")[0])
    found = own.last(state())
    own.close()
    assert "is damaged (it is of seeds [0], update 40)" in capsys.readouterr().out
    assert (found and found[0]) == (40 if "60" in target else None)


def test_the_advice_on_a_damaged_one_is_followed(folder):
    edit_rows(folder / "seed_0" / "40")
    with pytest.raises(checkpoints.DamagedError) as failed:
        list(checkpoints.states(folder, SEED, lambda seed: state(seed)))
    shutil.rmtree(re.search(r"the checkpoint (\S+) is damaged", str(failed.value))[1])
    assert last(folder)[0] == 20
    [(seed, update, _)] = checkpoints.states(folder, SEED, lambda seed: state(seed))
    assert (seed, update) == (0, 20)


def test_without_a_whole_one_there_is_none(folder, capsys):
    for update in ("20", "40"):
        edit_rows(folder / "seed_0" / update)
        (folder / "seed_0" / update / "state" / "_METADATA").write_text("")
    assert last(folder) is None
    assert "there is none before it" in capsys.readouterr().out


def unsummed(folder):
    """As before there were checksums."""
    for path in folder.rglob(checkpoints.SUMS):
        path.unlink()
    checkpoints.note(folder).write_text(json.dumps(IDENTITY, sort_keys=True, indent=1))


def test_old_ones_are_taken_as_they_are_and_get_checksums(folder, capsys):
    unsummed(folder)
    found = checkpoints.states(folder, SEED, lambda seed: state(seed))
    assert [update for _, update, _ in found] == [20, 40]
    assert checkpoints.keep_or_set_aside(folder, IDENTITY, KNOWN) == []
    assert capsys.readouterr().out.count("was saved without checksums: it is taken as it is") == 2
    for update in ("20", "40"):
        assert checkpoints.damage(folder / "seed_0" / update) is None
    assert checkpoints.keep_or_set_aside(folder, IDENTITY, KNOWN) == []
    assert last(folder)[0] == 40 and not capsys.readouterr().out
    edit_rows(folder / "seed_0" / "40")
    assert last(folder)[0] == 20


def test_an_old_one_that_cannot_be_read_is_one_line(folder, capsys):
    unsummed(folder)
    for path in (folder / "seed_0" / "40" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    assert last(folder)[0] == 20
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "40 is damaged (it cannot be read: " in said


@pytest.mark.parametrize("harm", ["", "null", "[1]", "flip"])
def test_a_damaged_identity_sets_checkpoints_aside(folder, capsys, harm):
    note = checkpoints.note(folder)
    text = note.read_text()
    note.write_text(text.replace('"td_steps": 3', '"td_steps": 2') if harm == "flip" else harm)
    with pytest.raises(checkpoints.DamagedError, match=r"identity\.json is damaged, .*; delete"):
        checkpoints.check(folder, IDENTITY, KNOWN, dict)
    checkpoints.keep_or_set_aside(folder, IDENTITY, KNOWN)
    aside = folder.with_name("checkpoints.old-1")
    assert f"(identity.json is damaged): now {aside}" in capsys.readouterr().out
    assert (aside / "seed_0" / "40").is_dir() and last(folder) is None
    checkpoints.check(folder, IDENTITY, KNOWN, dict)


def test_every_flipped_bit_of_an_identity_is_noticed_or_changes_nothing(folder):
    note, rng = checkpoints.note(folder), random.Random(1)
    text = note.read_bytes()
    for _ in range(60):
        flip(note, rng)
        found = checkpoints._identity_in(folder)
        assert found.identity is None or found.identity.items() >= IDENTITY.items()
        note.write_bytes(text)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"method": "mzu"}, "method: 'mzu', was 'rosmo'"),
        ({"settings": {"td_steps": 5}, "program": {"training": "b"}},
         "settings: td_steps 5, was 3; program: training"),
        ({"program": {"training": "b"}}, "program: training"),
        ({"versions": {"jaxlib": "2"}}, "versions: jaxlib 2, was 1"),
    ],
)  # fmt: skip
def test_what_sets_checkpoints_aside_is_named(folder, capsys, change, named):
    checkpoints.keep_or_set_aside(folder, {**IDENTITY, **change}, KNOWN)
    aside = folder.with_name("checkpoints.old-1")
    assert f"are of another run ({named}): now {aside}" in capsys.readouterr().out


def test_what_is_no_checkpoint_is_named_and_what_was_cut_off_goes(folder, capsys):
    (folder / "seed_0 (copy)").mkdir()
    (folder / "seed_x").mkdir()
    (folder / "seed_0" / "040").mkdir()
    (folder / "seed_0" / "notes").write_text("mine")
    shutil.copytree(folder / "seed_0" / "40", folder / "seed_0" / f"60{files.TEMPORARY}")
    (folder / f"identity.json.1-ab{files.TEMPORARY}").write_text("half")
    checkpoints.tidy(folder)
    said = capsys.readouterr().out
    for name in ("seed_0 (copy)", "seed_x", "seed_0/notes", "seed_0/040"):
        assert f"{folder / name} is no checkpoint and is left alone" in said
    assert said.count("\n") == 4
    assert not list(folder.rglob(f"*{files.TEMPORARY}*")) and last(folder)[0] == 40


def groups(folder, seeds, together=False):
    return [tuple(group) for group in checkpoints.groups(folder, seeds, together)]


def test_seeds_are_taken_from_a_larger_group(folder):
    def init(seed):
        return state(seed)

    pair = checkpoints.of_group(folder, (2, 3))
    for update in (20, 40):
        both = checkpoints.stack([state(2, update), state(3, 100 + update)])
        pair.save(update, both, [{"seed": s, "update": u} for u in (0, update) for s in (2, 3)])
    pair.close()
    assert groups(folder, [0, 3]) == [((0,), None), ((3,), (2, 3))]
    assert groups(folder, [2, 3, 4, 5], True) == [((2, 3), None), ((4, 5), None)]
    [alone] = checkpoints.groups(folder, [3], False)
    own, _ = checkpoints.take(folder, alone, init, keep=True)
    assert own.updates() == [20, 40]
    update, found, seen = own.last(state(3))
    np.testing.assert_array_equal(found["w"], state(3, 140)["w"])
    assert update == 40 and seen == [{"seed": 3, "update": 0}, {"seed": 3, "update": 40}]
    own.close()
    assert groups(folder, [3]) == [((3,), None)] and groups(folder, [2]) == [((2,), (2, 3))]
    assert groups(folder, [2, 3]) == [((2, 3), None)]
