"""The command line: parsing of options and printing; no decisions."""
