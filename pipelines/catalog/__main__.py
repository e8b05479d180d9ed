"""`python -m pipelines.catalog apply ...` is `edit-transfer apply ...`, for `ray job submit`."""

from infra.cli import main

main()
