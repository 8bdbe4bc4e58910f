"""YAML files, read within limits: nothing that a person writes comes near them, and what is beyond them is refused
before it is built in memory."""

from pathlib import Path
from typing import Any

import yaml

SIZE = 2**19  # bytes of a file; the largest that is shipped has 56 KB
VALUES = 20_000  # keys, values, lists and mappings, counted again wherever an alias repeats them
DEPTH = 32  # lists and mappings within each other
UNFIT = (ValueError, LookupError, AttributeError, OverflowError)  # what PyYAML raises where a text does not fit its tag


class BeyondLimit(yaml.MarkedYAMLError):
    """A file that is larger, deeper or more than a params file can be."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: mappings, lists, text, numbers, truth values and dates.

    Raises OSError if the file cannot be read, and yaml.YAMLError, whose ``problem`` says what is wrong, if it is not
    valid, gives a key twice, or is beyond a limit.
    """
    with path.open("rb") as file:
        content = file.read(SIZE + 1)
    if len(content) > SIZE:
        raise BeyondLimit(problem=f"got more than {SIZE} bytes; allowed: at most {SIZE}; remove what is no setting")
    return yaml.load(content, _Loader)  # noqa: S506 (a SafeLoader)


class _Loader(yaml.SafeLoader):
    """Counts values while it composes them, and refuses a key that is given twice, of which YAML takes the last."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.count = self.depth = 0
        self.whole: dict[str, int] = {}
        """How many values each anchor stands for, once the last of them has been composed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before = self.count
        repeats = isinstance(event, yaml.AliasEvent)
        if repeats and event.anchor in self.anchors.keys() - self.whole.keys():
            self._refuse(event, f"the anchor {event.anchor!r} contains itself; write out what it stands for")
        self.count += self.whole.get(event.anchor, 1) if repeats else 1
        self.depth += 1
        if self.count > VALUES:
            self._refuse(event, f"got more than {VALUES} values; allowed: at most {VALUES}, aliases written out")
        if self.depth > DEPTH:
            self._refuse(event, f"got more than {DEPTH} levels of lists and mappings; allowed: at most {DEPTH}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if event.anchor is not None and not repeats:
            self.whole[event.anchor] = self.count - before
        return node

    def _refuse(self, event: Any, problem: str) -> None:
        raise BeyondLimit(problem=problem, problem_mark=event.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            node.value.encode()  # half of a surrogate pair, as "\ud800" gives one, is no text
            return super().construct_object(node, deep)
        except UNFIT:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r:.80} is no {kind}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()  # a tag may call anything a mapping
        for key in (key for key, _ in pairs if isinstance(key, yaml.ScalarNode)):
            if key.value in given:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            given.add(key.value)
        return super().construct_mapping(node, deep)
