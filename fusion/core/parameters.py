"""Declaration of parameters: each is a field of an options dataclass, with default, unit, bounds and description.

The descriptors in ROS, the checks of values and the tables in the docs are made from these declarations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, TypeVar

from sensebind.fusion.core.errors import ConfigError

Value = bool | int | float | str | list[str]

MAX_SHOWN = 100  # characters of a wrong value in an error message
USER_DEFINED = "user-defined"  # in `modalities`: all user-defined modalities
TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    str: "string",
    list: "list of strings",
}


class Effect(Enum):
    """When a new value of a parameter takes effect. The value is the text for people."""

    AT_ONCE = "at once"
    CONFIGURE = "at the next configure"
    START = "when the process starts"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Its type is that of `default`. `bounds`: smallest and largest value of a number; None: no bounds. `choices`: the
    allowed strings; empty: all. `modalities`: the modalities whose sensors have this parameter, or `USER_DEFINED`;
    empty: all sensors have it. `formerly`: its name in the previous version, which is still accepted; empty: its name
    has not changed. `effect`: when a new value takes effect while the node runs; None: as its `Options` say.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    formerly: str = ""
    effect: Effect | None = None
    may_be_number: bool = False  # a string that may be a number, which YAML and `ros2 param set` read as one

    @property
    def allowed_values_text(self) -> str:
        """The allowed values, as text. Empty: all values of the type."""
        if self.choices:
            return f"{'some' if isinstance(self.default, list) else 'one'} of {', '.join(self.choices)}"
        if self.bounds is None:
            return ""
        low, high = self.bounds
        return f"{low:.12g} to {high:.12g}" + (f" {self.unit}" if self.unit else "")

    def applies_to(self, modality: str | None) -> bool:
        """Return whether a sensor of this modality has this parameter. True for None."""
        return modality is None or not self.modalities or modality in self.modalities

    def check(self, value: object) -> Value:
        """Return `value` in this parameter's type. Raises `ConfigError` for a wrong type or value."""
        kind = type(self.default)
        if kind in (int, float) and not isinstance(value, bool):
            value = self._number(value)
        elif self.may_be_number and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        elif isinstance(value, tuple):
            value = list(value)
        if type(value) is not kind or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
            raise ConfigError(f"parameter '{self.name}' must be a {TYPE_NAMES[kind]}, not {_shown(value)}")
        given = value if isinstance(value, list) else [value]
        if self.choices and (wrong := [v for v in given if v not in self.choices]):
            raise ConfigError(f"parameter '{self.name}' must be {self.allowed_values_text}, not {_shown(*wrong)}")
        return value  # type: ignore[return-value]  # its type is that of the default: checked above

    def _number(self, value: Any) -> Any:
        """Convert a number to this parameter's type, and check its bounds. Returns any other value unchanged."""
        kind: Any = type(self.default)
        accepted: Any = Real if kind is float else Integral
        if not isinstance(value, accepted):
            return value
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:  # NaN is out of all bounds
            raise ConfigError(f"parameter '{self.name}' must be {self.allowed_values_text}, not {_shown(value)}")
        try:
            number = kind(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ConfigError(f"parameter '{self.name}' must be a finite number, not {_shown(value)}")
        return number


def _shown(*values: object) -> str:
    """Wrong values for an error message, cut if they are long."""
    try:
        text = ", ".join(map(repr, values))
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def parameter(
    default: Value | tuple[str, ...],
    description: str,
    *,
    bounds: tuple[float, float] | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    name: str = "",
    modalities: tuple[str, ...] = (),
    formerly: str = "",
    effect: Effect | None = None,
    may_be_number: bool = False,
) -> Any:
    """Return a field of an options dataclass that declares a `Parameter`.

    `name`: only if it differs from the name of the field. `effect`: only if it differs from `Options.effect` of the
    dataclass. A list of strings is a tuple in the dataclass.
    """
    parameter_default = list(default) if isinstance(default, tuple) else default
    declared = Parameter(
        name, parameter_default, description, bounds, unit, choices, modalities, formerly, effect, may_be_number
    )
    return dataclasses.field(default=default, metadata={"parameter": declared})


class Options:
    """Base class of options dataclasses. The constructor checks the values and raises `ConfigError`.

    A subclass that accepts a mapping or a function as the value of a parameter checks it itself. `effect`: when a new
    value of its parameters takes effect while the node runs.
    """

    __slots__ = ()
    effect: ClassVar[Effect] = Effect.CONFIGURE

    def __post_init__(self) -> None:
        for field in _fields(self):
            if field.parameter and not isinstance(field.value, Mapping) and not callable(field.value):
                field.parameter.check(field.value)


OptionsT = TypeVar("OptionsT")


def parameters_of(options: object, prefix: str = "", modality: str | None = None) -> list[Parameter]:
    """Return the parameters that an options dataclass and the options in its fields declare, in order.

    The defaults are the values in `options`. `prefix` is put before each name. `modality`: only the parameters that
    sensors of this modality have (`USER_DEFINED` for user-defined modalities).
    """
    found = []
    for field in _fields(options, prefix, modality):
        if dataclasses.is_dataclass(field.value):
            found += parameters_of(field.value, prefix, modality)
        elif field.parameter:
            default = list(field.value) if isinstance(field.value, tuple) else field.value
            found.append(replace(field.parameter, default=default))
    return found


def options_with_values(
    options: OptionsT, values: Mapping[str, Any], prefix: str = "", modality: str | None = None
) -> OptionsT:
    """Return a copy of `options` with the values of the parameters `<prefix><name>` that `values` has.

    `modality`: as in `parameters_of`. Raises `ConfigError` for values that are out of bounds or do not fit together,
    with `prefix` in the message.
    """
    changes: dict[str, Any] = {}
    for field in _fields(options, prefix, modality):
        if dataclasses.is_dataclass(field.value):
            changes[field.name] = options_with_values(field.value, values, prefix, modality)
        elif field.parameter and field.parameter.name in values:
            value = field.parameter.check(values[field.parameter.name])
            changes[field.name] = tuple(value) if isinstance(value, list) else value
    try:
        return replace(options, **changes)  # type: ignore[type-var]  # an instance of a dataclass
    except ValueError as error:
        raise ConfigError(f"parameters '{prefix}*': {error}" if prefix else str(error)) from error


class _Field(NamedTuple):
    """A field of an options dataclass: its name, its value, and the parameter that it declares, with its full name."""

    name: str
    value: Any
    parameter: Parameter | None


def _fields(options: Any, prefix: str = "", modality: str | None = None) -> Iterator[_Field]:
    for field in dataclasses.fields(options):
        declared: Parameter | None = field.metadata.get("parameter")
        if declared and declared.applies_to(modality):
            old = prefix + declared.formerly if declared.formerly else ""
            declared = replace(
                declared,
                name=prefix + (declared.name or field.name),
                formerly=old,
                effect=declared.effect or getattr(options, "effect", Effect.CONFIGURE),
            )
        else:
            declared = None
        yield _Field(field.name, getattr(options, field.name), declared)
