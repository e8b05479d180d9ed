"""The making of the bundled base: a miniature of the FLUX.2 family, trained on procedural scenes."""
