"""Settings: which layer wins, what is refused and how it is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_spanchain import _shape
from pytest_spanchain._rules import compile_path
from pytest_spanchain._settings import (
    INI_NAMES,
    LIST_SETTINGS,
    RECORD_MODES,
    SETTING_NAMES,
    RecordMode,
    Settings,
    check_ini,
    check_names,
    nearest,
    parse_mode,
    resolve,
)
from pytest_spanchain.errors import UsageError

MODES = st.sampled_from(RECORD_MODES)
LAYER = MODES | st.none()


def resolved(**given: Any) -> Settings:
    layers: dict[str, Any] = {"marker": {}, "cli_mode": None, "fixture": {}, "ini": {}, "ci": False}
    return resolve(**{**layers, **given})


def mode_layer(mode: str | None) -> dict[str, Any]:
    return {} if mode is None else {"mode": mode}


@given(marker=LAYER, cli=LAYER, fixture=LAYER, ini=LAYER)
def test_the_strongest_layer_that_names_a_mode_wins(
    marker: str | None, cli: str | None, fixture: str | None, ini: str | None
) -> None:
    settings = resolved(
        marker=mode_layer(marker), cli_mode=cli, fixture=mode_layer(fixture), ini=mode_layer(ini), ci=False
    )
    assert settings.mode == next((mode for mode in (marker, cli, fixture, ini) if mode is not None), "none")


@given(marker=LAYER, cli=LAYER, fixture=LAYER, ini=LAYER)
def test_under_ci_only_the_command_line_can_make_a_run_record(
    marker: str | None, cli: str | None, fixture: str | None, ini: str | None
) -> None:
    settings = resolved(
        marker=mode_layer(marker), cli_mode=cli, fixture=mode_layer(fixture), ini=mode_layer(ini), ci=True
    )
    if cli in (None, "none"):
        assert settings.mode is RecordMode.NONE
    else:
        assert settings.mode == (marker or cli)


@pytest.mark.parametrize("name", LIST_SETTINGS)
def test_lists_of_all_layers_add_up_weakest_first(name: str) -> None:
    texts = {"ignore": ("body.a", "body.b", "body.c", "body.d"), "exact": ("clock", "uuid", "pid", "cwd")}
    a, b, c, d = texts.get(name, ("a", "b", "c", "d"))
    settings = resolved(ini={name: [a]}, fixture={name: (b,)}, marker={name: [c, d]})
    assert getattr(settings, name) == (a, b, c, d)


def test_single_values_override() -> None:
    settings = resolved(ini={"directory": "a", "eval_id": "x"}, fixture={"directory": "b"}, marker={"eval_id": "z"})
    assert (settings.directory, settings.eval_id) == ("b", "z")


def test_a_set_gives_the_same_settings_in_every_process() -> None:
    names = [f"name{index}" for index in range(50)]
    assert resolved(marker={"redact": set(names)}).redact == tuple(sorted(names))


def test_nothing_said_means_replay_only() -> None:
    assert resolved() == Settings()
    assert Settings().mode is RecordMode.NONE


@pytest.mark.parametrize("layer", ["marker", "fixture", "ini"])
@pytest.mark.parametrize(
    ("wrong", "hint"), [("tool", "'tools'"), ("ignores", "'ignore'"), ("directroy", "'directory'"), ("xyz", "valid: ")]
)
def test_an_unknown_name_is_refused_in_every_layer(layer: str, wrong: str, hint: str) -> None:
    with pytest.raises(UsageError, match=rf"{layer}.*unknown setting '{wrong}'.*{hint}"):
        resolved(**{layer: {wrong: ["x"]}})


@pytest.mark.parametrize(
    ("value", "hint"), [("onec", "'once'"), ("new-episodes", "'new_episodes'"), ("rewrit", "'rewrite'"), (None, "none")]
)
@pytest.mark.parametrize("layer", ["marker", "fixture", "ini"])
def test_a_misspelt_mode_is_refused_even_where_another_layer_wins(layer: str, value: object, hint: str) -> None:
    with pytest.raises(UsageError, match=rf"{layer}.*unknown record mode.*{hint}"):
        resolved(**{"marker": {"mode": "none"}, "cli_mode": "none", layer: {"mode": value}})


def test_a_mode_that_only_another_plugin_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="--record-mode: unknown record mode 'verify'"):
        resolved(cli_mode="verify")


@pytest.mark.parametrize("name", LIST_SETTINGS)
@pytest.mark.parametrize("value", ["text", 3, None, {"a": 1}, [3], [""], [None]])
def test_a_list_of_texts_is_a_list_of_texts(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"marker cassette: {name} takes"):
        resolved(marker={name: value})


def test_how_tools_are_found_is_said_by_the_last_word_and_takes_no_list_away() -> None:
    assert resolved().finds_tools
    settings = resolved(ini={"tools": ["off", "a:b"]}, marker={"tools": ["c:d"]})
    assert not settings.finds_tools
    assert settings.listed_tools == ("a:b", "c:d")
    settings = resolved(ini={"tools": ["off", "a:b"]}, marker={"tools": "auto"})
    assert settings.finds_tools
    assert settings.listed_tools == ("a:b",)
    with pytest.raises(UsageError, match="tools takes a list, not 'of'"):
        resolved(marker={"tools": "of"})


def test_tools_that_run_in_replay_are_named_by_globs() -> None:
    settings = resolved(marker={"run": ["pure_*"]})
    assert settings.runs("pure_math")
    assert not settings.runs("refund")


def test_only_known_kinds_of_volatile_values_are_compared_exactly() -> None:
    with pytest.raises(UsageError, match=r"no kind of volatile value 'clok'.*did you mean 'clock'"):
        resolved(marker={"exact": ["clok"]})


def test_only_known_words_say_what_an_unfound_tool_comes_to() -> None:
    assert resolved().unfound == "note"
    assert resolved(ini={"unfound": "fail"}).unfound == "fail"
    assert resolved(ini={"unfound": "fail"}, marker={"unfound": "note"}).unfound == "note"
    with pytest.raises(UsageError, match=r"marker cassette: unfound: there is no 'eror' \(valid: note, fail\)"):
        resolved(marker={"unfound": "eror"})


def test_functions_may_be_given_as_tools_and_nowhere_else() -> None:
    assert resolved(marker={"tools": [len, "module:fn"]}).tools == (len, "module:fn")
    with pytest.raises(UsageError, match="ignore takes non-empty texts"):
        resolved(marker={"ignore": [len]})


@pytest.mark.parametrize("name", ["directory", "eval_id", "unfound"])
@pytest.mark.parametrize("value", ["", 3, None, ["x"]])
def test_a_text_is_a_text(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"ini: {name} takes a non-empty text"):
        resolved(ini={name: value})


@pytest.mark.parametrize("name", ["ignore", "redact"])
def test_a_pattern_has_to_compile(name: str) -> None:
    with pytest.raises(UsageError, match=rf"marker cassette: {name}: not a regular expression: '\['"):
        resolved(marker={name: ["re:["]})
    assert getattr(resolved(marker={name: ["re:x+", "body.x"]}), name) == ("re:x+", "body.x")


# What could never have an effect, and so would be taken for a promise.
USELESS = {
    "allow_hosts": [
        *("localhost:8080", "http://localhost", "db.example/x", "*.example", "a b", "-x", "[::1]:80"),
        "//x",
    ],
    "ignore": [
        "re:x*",
        "body..x",
        "body.",
        "[",
        "user",
        "request.body.json.user",
        "response.body",
        "**",
        "$",
        "body[x]",
    ],
    "redact": ["re:x*", "body..x", "response.body.json.x", "request.body", "**.**", "$", "body[x]"],
}
USEFUL = {
    "allow_hosts": [
        "localhost",
        "db.example",
        "my_db",
        "10.0.0.1",
        "::1",
        "[::1]",
        "fe80::1",
        "unix:/run/db/*",
        "bücher.example",
    ],
    "ignore": [
        "body.json.a-b",
        "$.body.json",
        "arguments.items[*].id",
        "body.**.id",
        "**.id",
        "*.id",
        "headers",
        "re:[0-9]+",
    ],
    "redact": ["account", "account_id", "body.json.x", "result[0]", "**.id", "re:A-[0-9]+"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in USELESS.items() for text in texts])
def test_what_could_have_no_effect_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"marker cassette: {name}: "):
        resolved(marker={name: [text]})


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in USEFUL.items() for text in texts])
def test_what_has_an_effect_is_not(name: str, text: str) -> None:
    assert getattr(resolved(marker={name: [text]}), name) == (text,)


# --- the grammar of paths ----------------------------------------------------------------------------------------

TREE = {"a": {"b": [{"c": 1}, {"c": 2, "b": 3}]}, "b": 4}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b", {"a": {"b": [{"c": 1}, {"c": 2, "b": 3}]}, "b": "#"}),
        ("$.a.b", {"a": {"b": "#"}, "b": 4}),
        ("a.b[1].c", {"a": {"b": [{"c": 1}, {"c": "#", "b": 3}]}, "b": 4}),
        ("a.b.1.c", {"a": {"b": [{"c": 1}, {"c": "#", "b": 3}]}, "b": 4}),
        ("a.b[*].c", {"a": {"b": [{"c": "#"}, {"c": "#", "b": 3}]}, "b": 4}),
        ("a.*.*.c", {"a": {"b": [{"c": "#"}, {"c": "#", "b": 3}]}, "b": 4}),
        ("**.c", {"a": {"b": [{"c": "#"}, {"c": "#", "b": 3}]}, "b": 4}),
        ("**.b[1]", {"a": {"b": [{"c": 1}, "#"]}, "b": 4}),
        ("a.**.b", {"a": {"b": "#"}, "b": 4}),
        ("a.b.**.b", {"a": {"b": [{"c": 1}, {"c": 2, "b": "#"}]}, "b": 4}),
        ("a.**", {"a": "#", "b": 4}),
        ("**.*", {"a": "#", "b": "#"}),
    ],
)
def test_paths_lead_where_they_say(path: str, expected: Any) -> None:
    compiled = compile_path(path)
    found = compiled.put(TREE, "#")
    assert found == expected
    assert compiled.put(found, "#") is found
    assert repr(TREE) == "{'a': {'b': [{'c': 1}, {'c': 2, 'b': 3}]}, 'b': 4}"


@pytest.mark.parametrize("path", ["x", "a.b[2]", "a.b.c", "a[0]", "b.c", "b[0]", "a.b[*].c.d", "**.x", "a.**.x.b"])
def test_a_path_that_leads_nowhere_changes_nothing(path: str) -> None:
    assert compile_path(path).put(TREE, "#") is TREE


def test_paths_start_at_the_parts_of_a_request() -> None:
    shapes = (_shape._HTTP_REQUEST, _shape._TOOL_REQUEST, _shape._MCP_REQUEST, _shape._PROCESS_REQUEST)
    assert set(_shape.REQUEST_PARTS) == {part for shape in shapes for part in shape}


def test_ini_keys_of_others_are_none_of_our_business() -> None:
    check_ini([*INI_NAMES, "asyncio_mode", "spanchains"])
    with pytest.raises(UsageError, match=r"unknown key 'spanchain_recrod_mode' .did you mean 'spanchain_record_mode'"):
        check_ini(["asyncio_mode", "spanchain_recrod_mode"])


def test_every_setting_has_an_ini_key() -> None:
    expected = {"spanchain_" + ("record_mode" if name == "mode" else name) for name in SETTING_NAMES}
    assert set(INI_NAMES) == expected


@given(st.text(max_size=20))
def test_names_are_known_or_refused(name: str) -> None:
    if name in SETTING_NAMES:
        check_names([name], where="here")
        return
    with pytest.raises(UsageError, match=r"^here: unknown setting"):
        check_names([name], where="here")


@given(st.text(max_size=20))
def test_the_nearest_name_is_a_valid_one(name: str) -> None:
    hint = nearest(name, RECORD_MODES)
    assert hint == f" (valid: {', '.join(RECORD_MODES)})" or hint in [f" (did you mean {m!r}?)" for m in RECORD_MODES]


@pytest.mark.parametrize("mode", RECORD_MODES)
def test_modes_are_their_names(mode: str) -> None:
    parsed = parse_mode(mode, where="here")
    assert str(parsed) == mode
    assert parsed.replaces is (mode in ("all", "rewrite"))
