"""Reads YAML of any origin: the values of JSON, with limits on size, depth, aliases and numbers.

PyYAML's safe loader runs no code, but a short file can still cost all memory (aliases of aliases), end in an error of
any kind (`!!float abc`), or lose values silently (a key twice). Keys are always strings, as in ROS: in YAML 1.1 the key
`on` is a boolean. Dates are strings, as in ROS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.core.documents.bounded import MAX_BYTES, DocumentError, read_text
from sensebind.fusion.core.errors import printable

MAX_DEPTH = 40  # levels of lists and mappings
MAX_VALUES = 100_000  # keys and values, counted as often as aliases repeat them
MAX_PROBLEM_LENGTH = 500  # characters of an error, which quotes the file
MAX_DIGITS = 400  # characters of a number; the largest float has 309 digits
MAX_INTEGER = 2**64  # ROS has integers of 64 bits
TAG = "tag:yaml.org,2002:"
STRING, INTEGER, MERGE = f"{TAG}str", f"{TAG}int", f"{TAG}merge"
TAGS = {f"{TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
EXPONENT_NUMBER = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")  # no string, as in ROS and YAML 1.2
UNUSED_RESOLVERS = (f"{TAG}timestamp", f"{TAG}value")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in UNUSED_RESOLVERS]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # id of a composed node → its keys and values

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        before = self._values
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(f"more than {MAX_DEPTH} levels of nesting", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias:
            if id(node) not in self._sizes:
                raise _error("an alias that contains itself", mark)
            self._values += self._sizes[id(node)]
        else:
            self._values += 1
            self._sizes[id(node)] = self._values - before
        if self._values > MAX_VALUES:
            raise _error(f"more than {MAX_VALUES} values, counted with their aliases", mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key that is a list or a mapping", key.start_mark)
            if key.tag == MERGE:
                continue
            key.tag = STRING
            if key.value in names:
                raise _error(f"the key '{key.value}' twice in one mapping: remove one", key.start_mark)
            names.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in TAGS:
            raise _error(f"the type {node.tag.replace(TAG, '!!')}, which is not used here", node.start_mark)
        if isinstance(node, yaml.ScalarNode) and node.tag not in (STRING, MERGE) and len(node.value) > MAX_DIGITS:
            raise _error(f"a number of {len(node.value)} characters", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # the constructors of `!!float`, `!!int` and `!!bool` check nothing
            raise _error(f"'{node.value}', which is not {node.tag.replace(TAG, '!!')}", node.start_mark) from error
        if node.tag == INTEGER and abs(value) >= MAX_INTEGER:
            raise _error("a whole number that has more than 64 bits", node.start_mark)
        if isinstance(value, str) and not _is_text(value):
            raise _error("half of a surrogate pair (\\ud800 to \\udfff)", node.start_mark)
        return value


_Loader.add_implicit_resolver(f"{TAG}float", EXPONENT_NUMBER, list("-+0123456789"))


def read_yaml(path: str | Path, limit: int = MAX_BYTES) -> Any:
    """The value in a YAML file: None, bool, int, float, str, list, or dict with strings as keys.

    Raises `DocumentError`, and `FileNotFoundError`.
    """
    return parse_yaml(read_text(path, limit), f"'{path}'")


def parse_yaml(text: str, what: str = "the text") -> Any:
    """The value that a YAML text stands for, as `read_yaml`. Raises `DocumentError`, which begins with `what`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, (error.problem, error.note)))
        has = "has " if isinstance(error, _Refusal) else "is not YAML: "
        raise DocumentError(f"{what}{where} {has}{problem or error.context}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise DocumentError(f"{what} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DocumentError(f"{what} is nested too deeply") from error


class _Refusal(yaml.MarkedYAMLError):
    """YAML that is valid, but not accepted here."""


def _error(problem: str, mark: Any) -> _Refusal:
    return _Refusal(problem=printable(problem)[:MAX_PROBLEM_LENGTH], problem_mark=mark)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
