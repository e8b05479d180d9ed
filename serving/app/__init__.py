"""HTTP on Ray Serve: decode and check, hand to an engine, encode and answer; `build_from` is for `serve deploy`."""

from typing import TYPE_CHECKING, Any

from serving.app.options import Options

if TYPE_CHECKING:
    from ray.serve import Application


def build(options: Options) -> "Application":
    """The application for these options."""
    from serving.app import deployments

    return deployments.application(options)


def build_from(args: dict[str, Any]) -> "Application":
    """The same from the `args` of a Serve configuration: what `import_path: serving.app:build_from` calls."""
    return build(Options.model_validate(args))


__all__ = ["Options", "build", "build_from"]
