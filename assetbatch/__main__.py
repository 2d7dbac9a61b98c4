"""`python -m assetbatch` is the `assetbatch` command."""

from assetbatch.cli import main

main()
