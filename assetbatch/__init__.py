"""Keeps a PostgreSQL trading database fresh from the Polygon.io (Massive.com) REST API on a small call budget."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return `bars_table`, whose module is imported when it is first asked for: it needs pyarrow."""
    if name == "bars_table":
        import pkgutil

        return pkgutil.resolve_name("assetbatch.arrow:bars_table")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
