"""JSON of others: whatever it holds, a ValueError that says where."""

import re

import pytest

from rlfd.jsons import expect, parse_json, read_json

NONE = type(None)
FORM = {
    "name": str,
    "count": int,
    "share": float,
    "ok": bool,
    "kept": (str, NONE),
    "rows": [{"x": float}],
    "by": {"first": int, "*": {"*": (float, NONE)}},
}
GOOD = {
    "name": "a",
    "count": 3,
    "share": 2,
    "ok": False,
    "kept": None,
    "rows": [{"x": 0.5}, {"x": 1, "y": "anything"}],
    "by": {"first": 7, "second": {"p": 1.5, "q": None}},
    "more": [None, {}],
}


def test_what_is_right_is_returned(tmp_path):
    expect(GOOD, FORM)
    (tmp_path / "x").write_text('{"name": "é", "share": 1e-300}', encoding="utf-8")
    assert read_json(tmp_path / "x", FORM) == {"name": "é", "share": 1e-300}
    expect({}, FORM)  # nothing of it must be there


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 5}, "'name' is 5, expected a text"),
        ({"count": 2.0}, "'count' is 2.0, expected a whole number"),
        ({"count": True}, "'count' is True, expected a whole number"),
        ({"count": 10**400}, "'count' is too large, expected a whole number"),
        ({"share": float("inf")}, "'share' is inf, expected a number"),
        ({"share": float("nan")}, "'share' is nan, expected a number"),
        ({"share": "2"}, "'share' is '2', expected a number"),
        ({"ok": 1}, "'ok' is 1, expected true or false"),
        ({"kept": []}, "'kept' is"),
        ({"rows": {}}, "'rows' is {}, expected a list"),
        ({"rows": [{"x": 1.0}, {"x": None}]}, "'rows'[1].'x' is None, expected a number"),
        ({"by": {"first": "1"}}, "'by'.'first' is '1', expected a whole number"),
        ({"by": {"third": {"p": "1"}}}, "'by'.'third'.'p' is '1'"),
        ({"by": {"third": 5}}, "'by'.'third' is 5, expected a table"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        expect(GOOD | change, FORM)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 99_999, "nested too deeply"),
        ('{"a": ' * 99_999, "nested too deeply"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("9" * 5_000, "4300 digits"),
    ],
)
def test_no_text_is_a_surprise(text, words):
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_a_list_where_a_table_belongs():
    with pytest.raises(ValueError, match=r"it is \[\], expected a table"):
        parse_json("[]", FORM)
