"""A parameter is declared once: as a field of an options dataclass, with default, unit, range and description.

What ROS describes, how values are checked, and the tables in the docs all follow from these declarations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

from sensebind.fusion.core.errors import ConfigError

Value = bool | int | float | str | list[str]

USER_DEFINED = "user-defined"  # stands in `modalities` for every modality that the user defines
TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    str: "string",
    list: "list of strings",
}

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `minimum` and `maximum` bound a number, inclusive; `choices` bounds strings and lists of strings.

    `modalities`: those whose sensors have it, `USER_DEFINED` among them; empty: all.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The values that are allowed, in words; empty: all of its type."""
        if self.choices:
            return f"{'some' if isinstance(self.default, list) else 'one'} of {', '.join(self.choices)}"
        if self.minimum is None or self.maximum is None:
            return ""
        return f"{self.minimum:.12g} to {self.maximum:.12g}" + (f" {self.unit}" if self.unit else "")

    def applies_to(self, modality: str | None) -> bool:
        """Whether a sensor of this modality has this parameter. None: true."""
        return modality is None or not self.modalities or modality in self.modalities

    def check(self, value: object) -> Value:
        """Return `value` in this parameter's type. Raises `ConfigError` for another type, or a value out of range."""
        kind = type(self.default)
        if kind in (int, float) and not isinstance(value, bool):
            value = self._in_range(value)
        elif isinstance(value, tuple):
            value = list(value)
        if type(value) is not kind or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
            raise ConfigError(f"parameter '{self.name}' must be a {TYPE_NAMES[kind]}, not {value!r}")
        given = value if isinstance(value, list) else [value]
        if self.choices and (wrong := [v for v in given if v not in self.choices]):
            raise ConfigError(f"parameter '{self.name}' must be {self.range}, not {', '.join(map(repr, wrong))}")
        return value  # type: ignore[return-value]  # its type was compared with the default's above

    def _in_range(self, value: Any) -> Any:
        """A number in this parameter's type, if it is in range; what is no number of that kind is returned as it is."""
        kind: Any = type(self.default)
        accepted: Any = Real if kind is float else Integral
        if not isinstance(value, accepted):
            return value
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not low <= value <= high:  # NaN is in no range
            raise ConfigError(f"parameter '{self.name}' must be {self.range}, not {value!r}")
        return kind(value)


def parameter(
    default: Value | tuple[str, ...],
    description: str,
    *,
    within: tuple[float, float] | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    name: str = "",
    modalities: tuple[str, ...] = (),
) -> Any:
    """A field of an options dataclass that is a parameter.

    `within`: least and greatest value of a number. `name`: where it differs from the field's. A list of strings is a
    tuple in the dataclass. The rest: see `Parameter`.
    """
    shown = list(default) if isinstance(default, tuple) else default
    low, high = within or (None, None)
    declared = Parameter(name, shown, description, unit, low, high, choices, modalities)
    return dataclasses.field(default=default, metadata={"parameter": declared})


def parameters_of(options: object, prefix: str = "", modality: str | None = None) -> list[Parameter]:
    """The parameters that an options dataclass declares, and those of the options that it holds, in order.

    The defaults are the values in `options`. `prefix` comes before each name. `modality`: only those that sensors of
    this modality have (`USER_DEFINED` for one that the user defines).
    """
    found = []
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # a dataclass, of whatever class
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            found += parameters_of(value, prefix, modality)
        elif (declared := _declared(field)) and declared.applies_to(modality):
            default = list(value) if isinstance(value, tuple) else value
            found.append(dataclasses.replace(declared, name=prefix + declared.name, default=default))
    return found


def options_from(
    options: Options, values: Mapping[str, Any], prefix: str = "", modality: str | None = None, **more: Any
) -> Options:
    """These options with the values of the parameters `<prefix><name>`, where `values` has them, and with `more`.

    `modality`: as in `parameters_of`.

    Raises `ConfigError` for values that are out of range or do not fit together, with `prefix` in the message.
    """
    changes = dict(more)
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # a dataclass, of whatever class
        held, declared = getattr(options, field.name), _declared(field)
        if field.name in changes:
            continue
        if dataclasses.is_dataclass(held):
            changes[field.name] = options_from(held, values, prefix, modality)
        elif declared and declared.applies_to(modality) and prefix + declared.name in values:
            name = prefix + declared.name
            value = dataclasses.replace(declared, name=name).check(values[name])
            changes[field.name] = tuple(value) if isinstance(value, list) else value
    try:
        return dataclasses.replace(options, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigError(f"parameters '{prefix}*': {error}" if prefix else str(error)) from error


def check_parameters(options: object) -> None:
    """Check the range of every parameter of an options dataclass: for its `__post_init__`. Raises `ConfigError`.

    A dataclass that allows a mapping or a function in place of a parameter's value checks that itself.
    """
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # a dataclass, of whatever class
        value, declared = getattr(options, field.name), _declared(field)
        if declared and not isinstance(value, Mapping) and not callable(value):
            declared.check(value)


def _declared(field: dataclasses.Field[Any]) -> Parameter | None:
    """The parameter that a field declares, with its name."""
    declared: Parameter | None = field.metadata.get("parameter")
    return dataclasses.replace(declared, name=declared.name or field.name) if declared else None
