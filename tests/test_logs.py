"""A table of one's own becomes a dataset, or an error that says which column, row and remedy."""

import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest

from unplugged import coding, datasets, logs

ROLES = {
    "episode": "stay", "step": "hour", "observation": ["age", "ward"], "action": "drug",
    "reward": "gain", "ended": "over",
}  # fmt: skip


def frame(**changes):
    """Two stays out of order: one of three rows that ended, one of two."""
    columns = {
        "stay": ["b", "a", "b", "a", "b"],
        "hour": [2, 0, 0, 5, 1],
        "age": [3.0, 1.0, 1.0, 3.0, 2.0],
        "ward": ["x", "y", "x", "x", "y"],
        "drug": ["none", "high", "high", "none", "none"],
        "gain": [1.0, 0.5, 0.0, 2.0, 0.0],
        "over": [True, False, False, True, False],
    }
    return pd.DataFrame({**columns, **changes})


def test_rows_are_sorted_coded_and_standardised():
    dataset = logs.from_table(frame(), **ROLES, name="clinic")
    # Stay b appears first; where one ended its last row stands for the final observation.
    age = (np.array([1, 2, 3, 3, 1, 3, 3]) - 2.0) / np.std([3.0, 1.0, 1.0, 3.0, 2.0])
    ward = [[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [1, 0]]
    np.testing.assert_allclose(dataset.observation, np.column_stack([age, ward]), rtol=1e-6)
    assert dataset.action.tolist() == [0, 1, 1, 0, 0, 1, 0]
    assert dataset.reward.tolist() == [0, 0, 1, 0, 0.5, 2, 0]
    assert dataset.discount.tolist() == [1, 1, 0, 0, 1, 0, 0]
    assert dataset.is_first.tolist() == [True, False, False, False, True, False, False]
    assert dataset.metadata["environment"] == "clinic" and dataset.metadata["num_actions"] == 2
    book = logs.code_book(dataset)
    assert book.actions == ("high", "none") and book.names == ["age", "ward=x", "ward=y"]
    np.testing.assert_array_equal(book.encode(frame())[[2, 4, 0]], dataset.observation[:3])
    assert logs.code_book(datasets.Dataset(**dataset.arrays, metadata={})) is None


def test_an_episode_that_was_cut_off_loses_what_its_last_row_led_to():
    cut = frame(over=[True, False, False, False, False])
    told = "1 of 2 episodes were cut off.*the first in row 3, and rewards of 2 in all are lost. If"
    with pytest.warns(UserWarning, match=told):
        dataset = logs.from_table(cut, **ROLES, fewest=1)
    assert dataset.action.tolist() == [0, 1, 1, 0, 0, 0]
    assert dataset.reward.tolist() == [0, 0, 1, 0, 0.5, 0]
    assert dataset.discount.tolist() == [1, 1, 0, 0, 1, 1]
    assert dataset.metadata["table"]["rows_cut_off"] == 1


def test_a_last_row_without_action_and_reward_is_the_final_observation():
    """The advice of the warning; whether the episode ended may stand in either of its rows."""
    more = pd.DataFrame({"stay": ["a", "b"], "hour": [9, 9], "age": [9.0, 8.0], "ward": ["x", "y"]})
    for over, filled in ([True, True], [False, True], [True, False]):
        both = pd.concat([frame(over=[over, False, False, False, False]), more])
        if filled:
            both["over"] = both["over"].fillna(False).astype(bool)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = logs.from_table(both, **ROLES)
        assert dataset.action.tolist() == [0, 1, 1, 0, 0, 1, 0]
        assert dataset.reward.tolist() == [0, 0, 1, 0, 0.5, 2, 0]
        b = 0 if over else 1
        assert dataset.discount.tolist() == [1, 1, b, b, 1, 1, 1]
        ages = logs.code_book(dataset).observation[0]
        np.testing.assert_allclose(
            dataset.observation[[3, 6], 0] * ages.scale + ages.mean, [8, 9], rtol=1e-6
        )


def test_probabilities_and_masks_are_kept_and_read_again(tmp_path):
    more = frame(
        p=[0.5, 0.25, 1.0, 0.5, 0.5], may_high=[0, 1, 1, 0, 1], may_none=[True] * 5,
    )  # fmt: skip
    masks = {"none": "may_none", "high": "may_high"}
    dataset = logs.from_table(more, **ROLES, probability="p", allowed=masks)
    assert dataset.probability.tolist() == [1, 0.5, 0.5, 1, 0.25, 0.5, 1]
    assert dataset.allowed[:, 0].tolist() == [True, True, False, False, True, False, False]
    assert dataset.allowed[:, 1].all()
    datasets.save(dataset, tmp_path / "clinic.npz")
    again = datasets.load(tmp_path / "clinic.npz")
    assert datasets.checksum(again) == datasets.checksum(dataset)
    one = again.episodes([1])
    assert one.probability.tolist() == [0.25, 0.5, 1] and one.allowed.shape == (3, 2)
    # The final observation of an episode that was cut off has a value, of what is allowed there.
    last = pd.DataFrame({"stay": ["a"], "hour": [9], "age": [9.0], "ward": ["x"]})
    goes_on = pd.concat(
        [more.assign(over=[True, *[False] * 4]), last.assign(may_high=1, may_none=0)]
    )
    again = logs.from_table(goes_on, **ROLES, allowed=masks)
    assert again.allowed[-2:].tolist() == [[False, True], [True, False]] and again.discount[-1] == 1
    with pytest.raises(logs.TableError, match="'may_high' has no value in row 5; say true"):
        logs.from_table(pd.concat([goes_on[:5], last]), **ROLES, allowed=masks)
    plain = logs.from_table(more, **ROLES)
    assert plain.probability is None and datasets.checksum(plain) != datasets.checksum(dataset)
    wrong = datasets.Dataset(
        **{**dataset.arrays, "probability": dataset.reward}, metadata=dataset.metadata
    )
    with pytest.raises(datasets.DatasetError, match=r"probability is 0\.0 at step 0"):
        datasets.validate(wrong)
    wrong = datasets.Dataset(
        **{**dataset.arrays, "allowed": ~dataset.allowed}, metadata=dataset.metadata
    )
    with pytest.raises(datasets.DatasetError, match="allowed at step 0"):
        datasets.validate(wrong)


def test_files_of_tables(tmp_path):
    wanted = datasets.checksum(logs.from_table(frame(), **ROLES))
    for name in ("clinic.csv", "clinic.csv.gz"):
        frame().to_csv(tmp_path / name, index=False)
        assert datasets.checksum(logs.from_table(tmp_path / name, **ROLES)) == wanted
    named = frame(stay=["07", "7", "07", "7", "07"])
    named.to_csv(tmp_path / "named.csv", index=False)
    assert datasets.checksum(logs.from_table(tmp_path / "named.csv", **ROLES)) == wanted
    # So many that pandas reads them in parts: an id is the same whatever stands in the others.
    number = 60_000
    many = pd.concat([frame()] * number)
    ids = np.repeat(np.arange(number), 5) * 2 + np.tile([0, 1, 0, 1, 0], number)
    many["stay"] = np.where(ids == ids[-1], "last", ids.astype(str))
    many.to_csv(tmp_path / "many.csv", index=False)
    assert logs.from_table(tmp_path / "many.csv", **ROLES).num_episodes == 2 * number
    (tmp_path / "twice.csv").write_text("stay,hour,age,ward,drug,gain,over,age\n")
    with pytest.raises(logs.TableError, match="the table has 'age' more than once"):
        logs.from_table(tmp_path / "twice.csv", **ROLES)
    frame(drug=["NA", *frame()["drug"][1:]]).to_csv(tmp_path / "na.csv", index=False)
    with pytest.raises(
        logs.TableError, match=r"'drug' has no value in line 2.*NA, None and null in"
    ):
        logs.from_table(tmp_path / "na.csv", **ROLES)
    bad = frame(age=[3.0, None, 1.0, 3.0, 2.0])
    bad.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(logs.TableError, match="column 'age' has no value in line 3"):
        logs.from_table(tmp_path / "bad.csv", **ROLES)
    (tmp_path / "broken.csv").write_text('stay,hour,age,ward,drug,gain,over\n"a,1\n2')
    with pytest.raises(logs.TableError, match=r"cannot be read as CSV.*EOF inside string"):
        logs.from_table(tmp_path / "broken.csv", **ROLES)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(logs.TableError, match="cannot be read as CSV"):
        logs.from_table(tmp_path / "empty.csv", **ROLES)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'clinic\.csv'"):
        logs.from_table(tmp_path / "clinc.csv", **ROLES)
    (tmp_path / "clinic.xlsx").write_text("")
    with pytest.raises(logs.TableError, match=r"neither \.csv nor \.parquet; read it"):
        logs.from_table(tmp_path / "clinic.xlsx", **ROLES)


def test_parquet_where_pyarrow_is_there_or_not(tmp_path, monkeypatch):
    path = tmp_path / "clinic.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pyarrow: pip install -e '.\[tables"):
        logs.from_table(path, **ROLES)
    monkeypatch.undo()
    pytest.importorskip("pyarrow")
    with pytest.raises(logs.TableError, match="cannot be read as Parquet"):
        logs.from_table(path, **ROLES)
    frame().to_parquet(path)
    wanted = datasets.checksum(logs.from_table(frame(), **ROLES))
    assert datasets.checksum(logs.from_table(path, **ROLES)) == wanted


AMOUNTS = {"drug": [0.5, 1.0, 1.0, 0.0, 0.0], "fluid": [3, 9, 5, 5, 1]}
TWO = {"action": ["drug", "fluid"]}


def test_amounts_become_numbers_between_their_bounds():
    end = pd.DataFrame({"stay": ["a"], "hour": [9], "age": [9.0], "ward": ["x"], "over": [False]})
    rows = pd.concat([frame(**AMOUNTS, over=[True, *[False] * 4], p=[3, 1, 2, 2, 2]), end])
    roles = {**ROLES, **TWO, "probability": "p", "bounds": {"drug": (0, 2)}}
    dataset = logs.from_table(rows, **roles)
    drug, fluid = [0, -1, -0.5, 0, 0, -1, 0], [0, -1, -0.5, 0, 1, 0, 0]
    np.testing.assert_allclose(dataset.action, np.column_stack([drug, fluid]))
    # A unit of both is [0, 2] wide, and [1, 9]: four times as dense.
    assert dataset.probability.tolist() == [8, 8, 12, 1, 4, 8, 1]
    book = logs.code_book(dataset)
    assert book == logs.CodeBook.from_json(book.to_json()) and dataset.actions.dims == 2
    assert dataset.metadata["action_low"] == [0, 1] and dataset.metadata["action_high"] == [2, 9]
    for of, amounts in zip(book.quantities, ([0.0, 0.5, 2.0], [1.0, 3.0, 9.0])):
        np.testing.assert_allclose(of.decode(np.array([-3.0, -0.5, 1.0])), amounts)
    whole = logs.from_table(rows, **{**roles, "bounds": None})
    assert whole.metadata["action_high"] == [1, 9]


DATES = pd.date_range("2026-01-01", periods=5)


@pytest.mark.parametrize(
    ("changes", "roles", "message"),
    [
        ({}, {"observation": ["agee"]}, "no column 'agee': did you mean 'age'"),
        ({}, {"observation": "age"}, "observation must be a list of columns, got 'age'"),
        ({}, {"observation": []}, "must be a list of columns"),
        ({}, {"observation": ["age", "age"]}, "names column 'age' twice"),
        ({}, {"observation": ["gain"]}, "'gain' is the reward and among the observations.*leave"),
        ({}, {"observation": ["drug"]}, "'drug' is the action and among the observations"),
        ({}, {"observation": ["over"]}, "'over' is the ended and among"),
        ({}, {"reward": "drug"}, "'drug' is named as action and reward"),
        ({}, {"reward": 3}, "reward must be a column's name, got 3"),
        ({"stay": ["b", None, "b", "a", "b"]}, {}, "'stay' has no value in row 1; say whose row"),
        ({"hour": [2, 0, None, 5, 1]}, {}, "'hour' has no value in row 2; say when"),
        ({"hour": [2, 0, 2, 5, 1]}, {}, "row 0 and row 2 are both step 2 of episode b; drop one"),
        ({"hour": list("cabed")}, {}, "'hour' must order an episode's rows.*pandas.to_datetime"),
        ({"age": [3, 1, None, None, 2]}, {}, "'age' has no value in row 2 and 1 more; fill it kn"),
        ({"age": [3, 1, np.inf, 3, 2]}, {}, "'age' is inf in row 2, and at most 1e"),
        ({"age": [3, 1, 1, 3, 1e20]}, {}, r"'age' is 1e\+20 in row 4.*marks what is missing"),
        ({"age": DATES}, {}, r"'age' holds dates or times; give numbers, such as \(frame"),
        ({"age": ["3", "1", "n/a", "3", "2"]}, {}, "'age' holds numbers as texts, and 'n/a' in r"),
        ({"age": [3, "one", 1, 3, 2]}, {}, "'age' holds texts among numbers, such as 'one' in row"),
        ({"age": [3, [1], 1, 3, 2]}, {}, "'age' holds a list in row 1; give numbers, by astype"),
        ({"age": np.array([3, True, 1, 3, 2], object)}, {}, "'age' holds truths among numbers"),
        ({"age": pd.cut([3, 1, 1, 3, 2], 2)}, {}, r"categories such as Interval.*astype\(str\)"),
        ({}, {"observation": [["age"]]}, r"columns by their texts, got \['age'\]"),
        ({}, {"ended": None}, "ended must be a column's name, True or False, got None"),
        ({"hour": [2, 0, np.inf, 5, 1]}, {}, "'hour' is inf in row 2; say when it was"),
        ({"over": False, "gain": [1, 0, 0, 1, 0]}, {"fewest": 1}, "all rewards stand in last rows"),
        ({"age": [1j] * 5}, {}, "'age' holds complex numbers"),
        ({"ward": ["x", None, "x", "x", "y"]}, {}, "'ward' has no value in row 1; give it a name"),
        ({"drug": ["none", None, "high", "none", "high"]}, {}, "'drug' has no value in row 1; n"),
        ({"drug": ["none", "rare", "none", "none", "none"]}, {}, "'rare' only once, first in row"),
        ({"drug": ["none"] * 5}, {}, "'drug' is 'none' in every decision; there is nothing to"),
        ({"drug": [0.5, 1, 1, 0, 0]}, {}, "'drug' is 0.5 in row 0.*pandas.cut"),
        ({"gain": [1.0, None, 0.0, 2.0, 0.0]}, {}, "'gain' has no value in row 1; write 0 where"),
        ({"gain": list("abcde")}, {}, "'gain' must hold numbers, and is the text 'c' in row 2"),
        ({"age": ["36,5", "37,0", "36,1", "38,2", "37"]}, {}, "comma, such as '36,1'.*decimal=','"),
        ({"over": ["yes", "no", "no", "yes", "no"]}, {}, "'no' in row 2; compare it with what"),
        ({"over": [True, True, False, True, False]}, {}, "'over' is true in row 1, and row 3 goes"),
        ({"over": [True, None, False, True, False]}, {}, "'over' has no value in row 1; say true"),
        ({"stay": list("bacab"), "over": [True, False, False, True, False]}, {},
         "episode c has one row, row 2, and nothing of what followed; leave it out, or say"),
        ({"p": [0.5, 0.0, 1, 1, 1]}, {"probability": "p"}, "'p' is 0 in row 1.*above 0, at most 1"),
        ({"p": [0.5, None, 1, 1, 1]}, {"probability": "p"}, "'p' has no value in row 1; give that"),
        ({"p": [1.1, 0.5, 1, 1, 1]}, {"probability": "p"}, "'p' is 1.1 in row 0"),
        ({"m": 1}, {"allowed": ["m"]}, "allowed must name each action's column, as"),
        ({"m": 1}, {"allowed": {"none": "m"}}, "allowed has no column for action 'high'"),
        ({"m": 1}, {"allowed": {"none": "m", "high": "m", "hih": "m"}}, "'hih', which nobody did"),
        ({"m": [1, 0, 1, 1, 1]}, {"allowed": {"none": "age", "high": "m"}}, "'age' must be true"),
        ({"m": [1, 0, 1, 1, 1], "n": 1}, {"allowed": {"none": "n", "high": "m"}},
         "row 1 took 'high', which column 'm' does not allow"),
        ({"m": [1, 0, 1, 1, 1]}, {"allowed": {"none": "m", "high": "m"}}, "row 1 allows no action"),
        ({}, {"fewest": 0}, r"fewest must lie in \[1"),
        ({}, {"action": []}, "action must be a column, or a list of some; it is empty"),
        ({}, {"action": ["drug"]}, "'drug' must hold numbers, and is the text 'high' in row 2"),
        ({}, {"bounds": {"drug": (0, 1)}}, r"bounds are of continuous actions; give action=\["),
        (AMOUNTS, {**TWO, "bounds": {"fluids": (0, 1)}}, "'fluids': did you mean 'fluid'"),
        (AMOUNTS, {**TWO, "bounds": {"fluid": (1, 0)}}, r"are \(1, 0\); give the least, then"),
        (AMOUNTS, {**TWO, "bounds": {"fluid": 3}}, "bounds of 'fluid' must be two numbers, got 3"),
        (AMOUNTS, {**TWO, "bounds": {"fluid": (0, 8)}}, "'fluid' is 9 in row 1, beyond its"),
        (AMOUNTS, {**TWO, "allowed": {"drug": "age"}}, "allowed is for actions with names"),
        (AMOUNTS, {"action": ["drug", "gain"]}, "'gain' is named as action 2 and reward"),
        ({**AMOUNTS, "fluid": 1.0}, TWO, "'fluid' is 1 in every decision; leave it out, or give"),
        ({**AMOUNTS, "fluid": [None, 9, 1, 1, 1]}, TWO, "'fluid' has no value in row 0; name what"),
        ({**AMOUNTS, "p": [1.5, 0, 1, 1, 1]}, {**TWO, "probability": "p"}, "in row 1.*density"),
    ],
)  # fmt: skip
def test_each_bad_case_names_column_row_and_remedy(changes, roles, message):
    with pytest.raises(ValueError, match=message):
        logs.from_table(frame(**changes), **{**ROLES, **roles})


def test_what_is_no_table():
    with pytest.raises(logs.TableError, match="a table is a pandas frame or a path, got a list"):
        logs.from_table([1, 2], **ROLES)
    with pytest.raises(logs.TableError, match="the table has no rows"):
        logs.from_table(frame().head(0), **ROLES)
    twice = pd.concat([frame(), frame()[["age"]]], axis=1)
    with pytest.raises(logs.TableError, match="the table has 'age' more than once"):
        logs.from_table(twice, **ROLES)
    many = pd.DataFrame({
        "stay": np.arange(600) // 2, "hour": np.arange(600) % 2, "age": 1.0, "gain": 0.0,
        "ward": [f"name {i}" for i in range(600)], "drug": np.arange(600) % 2,
    })  # fmt: skip
    with pytest.raises(logs.TableError, match=r"'ward' has 600 different texts.*leave out"):
        logs.from_table(many, **{**ROLES, "ended": True})


def test_the_remedies_work():
    """What the messages advise, done to the tables that they are about."""
    some = frame(
        age=["3", "1", "n/a", "3", "2"], ward=["x", None, "x", "x", "y"],
        gain=[1.0, None, 0.0, 2.0, 0.0], over=["yes", "no", "no", "yes", "no"],
        drug=[0.5, 1.5, 1.5, 0.25, 0.0], when=DATES,
    )  # fmt: skip
    some["age"] = pd.to_numeric(some["age"], errors="coerce")
    some["age is missing"] = some["age"].isna()
    some["age"] = some["age"].fillna(some["age"].mean())
    some["ward"] = some["ward"].fillna("unknown")
    some["gain"] = some["gain"].fillna(0.0)
    some["over"] = some["over"] == "yes"
    some["drug"] = pd.cut(some["drug"], 2, labels=False)
    some["hours"] = (some["when"] - some["when"].min()) / pd.Timedelta(hours=1)
    roles = {**ROLES, "observation": ["age", "age is missing", "ward", "hours"]}
    dataset = logs.from_table(some, **roles)
    book = logs.code_book(dataset)
    assert book.names == ["age", "age is missing", "ward=unknown", "ward=x", "ward=y", "hours"]
    assert book.actions == (0, 1)
    logs.from_table(pd.concat([frame(), frame()]).drop_duplicates(), **ROLES)
    wanted = datasets.checksum(logs.from_table(frame(), **ROLES))
    dates = DATES[[2, 0, 0, 4, 1]]
    # fmt: off
    for hour in (dates, dates - DATES[0], dates.astype(str), dates.tz_localize("UTC"),
                 pd.array([2, 0, 0, 5, 1], "Int64"), list("20051"), ["0010", "0", "0", "11", "9"]):
        assert datasets.checksum(logs.from_table(frame(hour=hour), **ROLES)) == wanted
    # fmt: on
    sure = frame(p=[1 + 1e-9, 1, 1, 1, 1])  # A sum that was rounded.
    assert logs.from_table(sure, **ROLES, probability="p").probability.max() == 1


def test_skipped_steps_are_told_of():
    steps = np.delete(np.arange(40), 20)
    rows = pd.DataFrame({
        "stay": 1, "hour": steps, "age": steps, "ward": "x", "drug": steps % 2, "gain": 0.0,
        "over": steps == 39,
    })  # fmt: skip
    with pytest.warns(UserWarning, match="skips steps 1 times, first between row 19 and row 20"):
        logs.from_table(rows, **ROLES)


def test_a_file_with_other_separators_is_told(tmp_path):
    frame().to_csv(tmp_path / "clinic.csv", index=False, sep=";")
    with pytest.raises(
        coding.TableError, match=r"only one at all.*pandas.read_csv\(..., sep=';'\)"
    ):
        logs.from_table(tmp_path / "clinic.csv", **ROLES)


def test_new_rows_are_coded_by_the_book_alone():
    book = logs.code_book(logs.from_table(frame(), **ROLES))
    again = coding.CodeBook.from_json(book.to_json())
    assert again == book
    for changes, message in [
        ({"ward": "z"}, "column 'ward' is 'z' in row 0, which the table.*never had: Valid: x, y"),
        ({"age": None}, "column 'age' has no value in row 0"),
        ({"age": "old"}, "column 'age' must hold numbers, and is the text 'old' in row 0"),
    ]:
        with pytest.raises(coding.TableError, match=message):
            again.encode(frame(**changes))
    with pytest.raises(coding.TableError, match="no column 'ward'"):
        again.encode(frame().drop(columns="ward"))


def test_categories_of_pandas_keep_their_order():
    ward = pd.Categorical(["lo", "hi", "lo", "lo", "hi"], categories=["lo", "mid", "hi"])
    drug = pd.Categorical(["none", "high", "high", "none", "none"], categories=["none", "high"])
    book = logs.code_book(logs.from_table(frame(ward=ward, drug=drug), **ROLES))
    assert book.observation[1].values == ("lo", "hi") and book.actions == ("none", "high")


def test_a_large_table_is_read_in_time():
    """A tenth of a million rows of 30 columns in a tenth of 30 seconds, and some."""
    rng, rows = np.random.default_rng(0), 100_000
    columns = {f"x{i}": rng.normal(size=rows) for i in range(26)}
    large = pd.DataFrame({
        **columns, "ward": rng.choice(list("abcd"), rows), "stay": np.arange(rows) // 20,
        "hour": np.arange(rows) % 20, "drug": rng.choice(["none", "high"], rows), "gain": 1.0,
    }).sample(frac=1, random_state=0)  # fmt: skip
    begin = time.process_time()
    dataset = logs.from_table(large, **{**ROLES, "observation": [*columns, "ward"], "ended": True})
    assert time.process_time() - begin < 3.0
    assert dataset.num_transitions == rows and dataset.observation.shape == (rows + 5_000, 30)
