"""Options that several commands share: declared once, as the signature of a function, and added to those commands."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., None])


def with_options_of(shared: Callable[..., Any], without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of `shared` but for some, after its own; it gets them as its `**asked`.

    The command's module must not postpone its annotations: Typer would look for the shared ones in there.
    """

    def extended(own: Command) -> Command:
        named = [each for each in _parameters(own) if each.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [each for each in _parameters(shared) if each.name not in without]
        every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*named, *added)]
        own.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        return own

    return extended


def _parameters(command: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    return inspect.signature(command).parameters.values()
