"""The privacy verbs: train (image methods and SlerpFace), evaluate, compare."""

from __future__ import annotations

import typer

from .cli_privacy_attack import compare, evaluate

privacy_app = typer.Typer(help="Privacy-preserving recognition: train a method, attack it, compare methods.", no_args_is_help=True)
privacy_app.command()(evaluate)
privacy_app.command()(compare)
