"""Polygon.io, renamed Massive.com: a module for each endpoint. Documents: https://massive.com/docs/rest."""
