"""Numbered SQL files, NNNN_what.sql, applied in order; a file that was released never changes."""
