"""`python -m assetbatch` is the `assetbatch` command."""

from assetbatch.cli.main import main

main()
