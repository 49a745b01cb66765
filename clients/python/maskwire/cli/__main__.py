"""Runs the command line interface: python -m maskwire.cli."""

from maskwire.cli import main

main()
