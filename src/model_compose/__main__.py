"""How does the command start? Light, so that Ctrl-C finds nothing half-imported to complain about."""

import sys


def main() -> None:
    """Run the command line; ends with exit code 130 when it is stopped while its parts are imported."""
    try:
        from model_compose.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
