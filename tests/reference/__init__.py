"""The pages of docs/reference and the manual page, each made from what the program declares; a test holds them.

`python -m tests.reference` writes them anew, and `--check` tells which are not current; `scripts/docs` calls it.
"""
