"""Test the one-line errors for values that pydantic rejects."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stream_seg.errors import ConfigError
from stream_seg.schema.validation import describe_type, describe_unknown, validate

Triple = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    level: Annotated[int, Field(ge=0, le=9)] = 0


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    mode: Literal["fast", "slow"] = "fast"
    every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    size: tuple[int, int] | None = None
    mean: Triple = (0, 0, 0)
    palette: str | tuple[tuple[int, int, int], ...] = "camvid"
    weights: dict[str, Annotated[float, Field(lt=1)]] = {}
    parts: tuple[Part, ...] = ()

    @field_validator("palette")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value == "none":
            raise ValueError("no such palette")
        return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected a mapping with the keys mode, every, size, mean, palette, weights, parts, got []"),
        ({"mood": 1}, "unknown key 'mood', did you mean mode? (known: mode, every, size, mean"),
        ({"mode": "quick"}, "mode: expected fast or slow, got 'quick'"),
        ({"every": 0}, "every: expected whole number >= 1 or auto, got 0"),
        ({"every": "often"}, "every: expected whole number >= 1 or auto, got 'often'"),
        ({"size": [352]}, "size: expected list of 2, each a whole number, got [352]"),
        ({"size": [352, "x"]}, "size.1: expected whole number, got 'x'"),
        ({"mean": [1, 2]}, "mean: expected list of 3, each a number, got [1, 2]"),
        ({"mean": [1, 2, float("nan")]}, "mean.2: expected a finite number, got nan"),
        ({"palette": 3}, "palette: expected text or list, got 3"),
        ({"palette": [[0, 0, "red"]]}, "palette.0.2: expected whole number, got 'red'"),
        ({"palette": "none"}, "palette: no such palette"),
        ({"weights": {"car": 2}}, "weights.car: expected number < 1, got 2"),
        ({"weights": {1: 0.5}}, "weights.1: expected text, got 1"),
        ({"parts": [{}]}, "parts.0.name: is required"),
        (
            {"parts": [{"name": "a"}, {"nmae": "b"}]},
            "parts.1: unknown key 'nmae', did you mean name? (known: name, level)",
        ),
        ({"parts": [{"name": "a", "level": 10}]}, "parts.0.level: expected whole number >= 0 and <= 9, got 10"),
        ({"mode": {"a": 1}}, "mode: expected fast or slow, got a mapping"),
        (b"{", "invalid JSON: "),
    ],
)
def test_an_error_names_place_expectation_and_value(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Document, value, where="a.yaml")
    assert str(caught.value).startswith(f"a.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_reported_before_the_missing_one() -> None:
    with pytest.raises(ConfigError, match=r"^parts\.0: unknown key 'nam', did you mean name\?"):
        validate(Document, {"parts": [{"nam": "a"}]}, where="")


def test_passwords_are_redacted() -> None:
    address = "rtsp://viewer:hunter2@camera/live"
    for value in ({"mode": address}, {address: 1}, {"weights": {address: "x"}}, {"parts": [address]}):
        with pytest.raises(ConfigError) as caught:
            validate(Document, value, where="a.yaml")
        assert "hunter2" not in str(caught.value)


def test_json_is_read_from_bytes() -> None:
    assert validate(Document, b'{"mode": "slow"}', where="a.json").mode == "slow"


def test_descriptions() -> None:
    assert describe_type(Document.model_fields["size"]) == "list of 2, each a whole number"
    assert describe_type(Document.model_fields["weights"]) == "mapping, each to a number < 1"
    assert describe_unknown("stage", "smoth", ["segment", "smooth"]) == (
        "unknown stage 'smoth', did you mean smooth? (known: segment, smooth)"
    )
