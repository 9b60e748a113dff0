"""Names and values as people write them: `key=value` words and YAML files, read as plain data and not yet checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError

from vireid.declaration import value_text
from vireid.errors import SettingsError


@dataclass(frozen=True)
class Given:
    """A value as YAML reads it, how it is written where that is one word, and where it stands."""

    value: Any
    text: str | None = None
    where: str = ""

    def __str__(self) -> str:
        return value_text(self.value) if self.text is None else self.text


MAX_DEPTH = 50  # of lists and names inside of each other


class Loader(yaml.SafeLoader):
    """Plain data; refuses a key given twice. `true`, `on` and dates stay text, so that the type of a setting decides.

    `<<: *anchor` may stand beside keys that win over it. What does not have its written kind, refers to itself or is
    nested too deeply is a yaml.YAMLError with its place.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.open_anchors: list[str | None] = []  # of the nodes around the one that is read

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.open_anchors:
            raise ComposerError(None, None, f"*{event.anchor} refers to itself", event.start_mark)
        if len(self.open_anchors) >= MAX_DEPTH:
            raise ComposerError(None, None, "this is nested too deeply", event.start_mark)
        self.open_anchors.append(None if isinstance(event, yaml.AliasEvent) else getattr(event, "anchor", None))
        try:
            return super().compose_node(parent, index)
        finally:
            self.open_anchors.pop()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError):  # of a written kind, as in `!!int abc`, and of 5,000 digits
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"expected a {kind}", node.start_mark) from None

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {
        letter: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):  # of `!!map` before something else
            raise yaml.constructor.ConstructorError(None, None, "expected names and values", node.start_mark)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name is one word", key.start_mark)
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{name}` is given twice", key.start_mark)
            seen.add(name)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


class Located(Loader):
    """Every value is a `Given` that knows how and where it is written."""

    def given(self, node: yaml.Node) -> Any:
        where = f"{self.name} line {node.start_mark.line + 1}: "
        if not isinstance(node, yaml.SequenceNode):
            value = Loader.yaml_constructors[node.tag](self, node)
            return Given(value, None if value is None else node.value, where)
        parts = self.construct_sequence(node, deep=True)
        if any(isinstance(part, dict) for part in parts):
            return parts
        return Given([part.value if isinstance(part, Given) else part for part in parts], None, where)


for tag in ("null", "bool", "int", "float", "timestamp", "str", "seq"):
    Located.add_constructor(f"tag:yaml.org,2002:{tag}", Located.given)


def read_words(words: Sequence[str], faults: list[str]) -> dict[str, Given]:
    """`key=value` words by key."""
    values: dict[str, Given] = {}
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not key or not text:
            faults.append(f"`{word}` is not a setting: expected key=value, e.g. epochs=60 or size=[144,72]")
            continue
        if key in values:
            faults.append(f"`{key}` is given twice, as {values[key]} and {text}; keep one")
            continue
        try:
            value = yaml.load(text, Loader)  # a SafeLoader
        except yaml.YAMLError:
            faults.append(f"`{word}` cannot be read: expected a number, a word or a list such as [144,72]")
        else:
            values[key] = Given(value, None if value is None or isinstance(value, list | dict) else text)
    return values


def read_file(path: Path, faults: list[str]) -> dict[str, Given]:
    """The settings of a YAML file, nested or dotted, by dotted key."""
    try:
        content = read_yaml(path, Located)
    except SettingsError as error:
        faults += error.faults
        return {}
    values: dict[str, Given] = {}
    for key, value in flat(content):
        if key in values:
            faults.append(f"`{key}` is given twice in {path}, nested and dotted; keep one")
        values[key] = value if isinstance(value, Given) else Given(value)
    return values


def read_yaml(path: Path, loader: type[Loader] = Loader) -> dict[str, Any]:
    """The names and values of a YAML file, read as plain data; SettingsError says what is wrong with it."""
    try:
        with Path(path).open("rb") as file:  # UTF-8, or UTF-16 with a mark
            content = yaml.load(file, loader)  # a SafeLoader
    except FileNotFoundError:
        fault = f"no settings file at {path}; give the path of a YAML file or leave it out"
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        fault = f"{path} is not a text file in UTF-8; expected YAML such as `epochs: 60`"
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f"{path} line {mark.line + 1}" if mark else str(path)
        fault = f"{where}: {problem}; expected YAML such as `epochs: 60`"
    else:
        if content is None or isinstance(content, dict):
            return content or {}
        came = "a list" if isinstance(getattr(content, "value", content), list) else "one value"
        fault = f"{path} holds {came}, expected names and values such as `epochs: 60`"
    raise SettingsError([fault])


def flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list) and content and all(isinstance(element, dict) for element in content):
        yield from flat(dict(enumerate(content)), prefix)
    else:
        yield prefix, content
