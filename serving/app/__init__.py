"""HTTP on Ray Serve: decode and check, hand to an engine, encode and answer. `build` makes it for `serve deploy`."""

from typing import TYPE_CHECKING

from serving.app.options import Options

if TYPE_CHECKING:
    from ray.serve import Application


def build(options: Options) -> "Application":
    """The application for these options: what `import_path: serving.app:build` calls."""
    from serving.app import deployments

    return deployments.application(options)


__all__ = ["Options", "build"]
