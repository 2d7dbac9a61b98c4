"""Keeps a PostgreSQL trading database fresh from the Polygon.io (Massive.com) REST API on a small call budget."""

__version__ = "0.1.0"
