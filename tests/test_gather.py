"""Results of several runs in one file."""

import json

from reproduction import gather


def test_rows_stand_one_after_the_other_and_records_by_name(tmp_path, capsys):
    for name, text in (("a", "x,y\n1,2\n3,4\n"), ("b", "x,y\n5,6\n"), ("c", "x\n7\n")):
        (tmp_path / f"{name}.csv").write_text(text)
        (tmp_path / f"{name}.json").write_text(json.dumps({"of": name}))
    a, b, c = (str(tmp_path / f"{name}.csv") for name in "abc")
    whole = tmp_path / "new" / "whole.csv"
    assert gather.main(["rows", str(whole), a, b]) == 0
    assert whole.read_text() == "x,y\n1,2\n3,4\n5,6\n"
    # A file with other columns is named, and what is there stays.
    assert gather.main(["rows", str(whole), a, c]) == 2
    assert f"{c} has other columns than {a}; delete" in capsys.readouterr().err
    assert whole.read_text().endswith("5,6\n")
    parts = [f"catch/{name}={tmp_path / name}.json" for name in "ab"]
    assert gather.main(["records", str(whole), *parts]) == 0
    assert json.loads(whole.read_text()) == {"catch/a": {"of": "a"}, "catch/b": {"of": "b"}}
