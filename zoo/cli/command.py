"""What every command has alike: `--json`, `--version`, options that go together, and work that is never silent.

A command's results go to the standard output, and with `--json` nothing else does; progress and errors go to the
standard error stream. That is done here for all of them, by the classes that commands and options are made of.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from zoo.installed import distribution
from zoo.made_by import json_text
from zoo.progress import never_silent, results_alone

# What a run of a command keeps: whether JSON is asked for, and what there is to print.
_ASKED, _RESULT = "zoo.json", "zoo.result"


class Option(click.Option):
    """An option that may depend on others, which the command checks before it does anything.

    `goes_with`: the option, or options, without which this one has no effect, as "--against", or "--format bioimageio"
    where it has to have a value; the help says it first. `apart_from`: options of which it is one of two at most.
    """

    def __init__(
        self, *arguments: Any, goes_with: str | Sequence[str] = (), apart_from: Sequence[str] = (), **given: Any
    ):
        """Take an option's declaration, as click does."""
        super().__init__(*arguments, **given)
        self.goes_with = (goes_with,) if isinstance(goes_with, str) else tuple(goes_with)
        self.apart_from = tuple(apart_from)
        if self.goes_with and self.help:
            self.help = f"With {' and '.join(self.goes_with)}: {self.help[0].lower()}{self.help[1:]}"


# Declares an option of a command, with what it depends on.
option: Callable[..., Any] = partial(click.option, cls=Option)


def _say_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    click.echo(f"{context.find_root().info_name} {distribution()[1]}")
    context.exit()


def version_option() -> click.Option:
    """`--version`: print the version of the distribution that this package came with, and exit."""
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_say_version,
        help="Show the version and exit.",
    )


def _ask_for_json(context: click.Context, option: click.Parameter, asked: bool) -> None:
    context.meta[_ASKED] = asked


def _json_option() -> click.Option:
    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        callback=_ask_for_json,
        help="Print the results as JSON, alone on the standard output.",
    )


class Command(click.Command):
    """A command of the zoo, whose callback hands its results to `give`."""

    def __init__(self, *arguments: Any, **given: Any):
        """Take a command's declaration, as click does, and add what all have."""
        super().__init__(*arguments, **given)
        self.params += [_json_option(), version_option()]

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and check that its options have an effect beside each other.

        Raises:
            click.UsageError: naming the two that do not go together, or the one that is missing.
        """
        rest = super().parse_args(context, args)
        if not context.resilient_parsing:
            self._check_together(context)
        return rest

    def _check_together(self, context: click.Context) -> None:
        options = [each for each in self.params if isinstance(each, Option)]
        given = [each for each in options if _is_given(context, each)]
        for each in given:
            for condition in each.goes_with:
                other, _, value = condition.partition(" ")
                partner = named(self, other)
                if not (str(context.params[_key(partner)]) == value if value else partner in given):
                    raise click.UsageError(f"{_shown(each)} has no effect without {condition}", context)
            for beside in given:
                if not {*beside.opts}.isdisjoint(each.apart_from):
                    raise click.UsageError(f"{_shown(each)} and {_shown(beside)}: accepted: one of the two", context)

    def invoke(self, context: click.Context) -> Any:
        """Run the command, and print its results as JSON where they are asked for that way."""
        with never_silent(context.command_path):
            if not context.meta.get(_ASKED):
                return super().invoke(context)
            try:
                with results_alone():
                    value = super().invoke(context)
            finally:
                if _RESULT in context.meta:
                    click.echo(json_text(context.meta[_RESULT]), nl=False)
        if _RESULT not in context.meta:
            raise RuntimeError(f"{context.command_path} gave no results for --json")
        return value


def give(result: dict[str, Any]) -> None:
    """Hand on a command's results, for `--json`: values of JSON alone; an error after it does not take them back."""
    click.get_current_context().meta[_RESULT] = result


def is_json_asked() -> bool:
    """Whether the command that is running was asked for JSON."""
    return bool(click.get_current_context().meta.get(_ASKED))


def named(command: click.Command, name: str) -> click.Option:
    """The option of a command that is called `name`, such as "--against"."""
    return next(each for each in command.params if isinstance(each, click.Option) and name in each.opts)


def _key(option: click.Option) -> str:
    if option.name is None:
        raise RuntimeError(f"{option.opts[0]} has no name")
    return option.name


def _is_given(context: click.Context, option: click.Option) -> bool:
    return context.get_parameter_source(_key(option)) is ParameterSource.COMMANDLINE


def _shown(option: click.Option) -> str:
    """The option's long name."""
    return max(option.opts, key=len)
