"""The routes: each module has a `router(services)`."""
