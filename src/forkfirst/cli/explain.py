"""`plan`: what a start would do, step by step, with nothing done."""

from __future__ import annotations

from forkfirst.cli import declare
from forkfirst.plan import order
from forkfirst.stages import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from forkfirst.plan.plan import Plan
    from forkfirst.plan.service import Declaration


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `plan`."""
    declare.add_service_arguments(parser)
    parser.add_argument("-f", "--foreground", action="store_true", help="plan for run, not start")
    parser.add_argument("--spawn", action="store_true", help="plan for start --spawn")


def run(_: str, arguments: argparse.Namespace) -> int:
    """Print the plan of each service."""
    for service in declare.make_declarations(arguments):
        show(service, foreground=arguments.foreground, spawn=arguments.spawn)
    return 0


def show(service: Declaration, *, foreground: bool, spawn: bool = False) -> int:
    """Print what starting *service* would do, and do nothing."""
    host = probe.read_host(detaching=not foreground, service=service)
    print(describe_plan(order.make_plan(service, host, foreground=foreground, spawn=spawn)), end="")
    return 0


def describe_plan(plan: Plan) -> str:
    """Return every step of *plan* as text: one line each, under the process that takes it."""
    lines = [f"{plan.service.name}: {plan.mode}"]
    number = 0
    for process, chosen in (
        ("launcher", plan.first),
        ("session leader", plan.leader),
        ("service, at the same time", plan.early),
        ("launcher", plan.launcher),
        ("service", plan.worker),
        ("launcher", plan.last),
        ("template", plan.template),
        ("workers, each", plan.program),
    ):
        if chosen:
            lines.append(f"  in the {process}:")
        for step in chosen:
            number += 1
            text = step.describe()
            lines.append(f"  {number:3}. {text:<68}  {step.manual}")
    return "\n".join(lines) + "\n"
