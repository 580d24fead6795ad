"""The program through its real entry point, as in the tests of the command line."""

from tests.cli.conftest import clean_environment, cli

__all__ = ["clean_environment", "cli"]
