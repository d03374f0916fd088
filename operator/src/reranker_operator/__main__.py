"""`python -m reranker_operator`, and the command `reranker-operator`."""

import sys


def main() -> None:
    """As `reranker_operator.main.main`, where what it needs is installed."""
    try:
        from reranker_operator.main import main as run  # noqa: PLC0415 - see below
    except ModuleNotFoundError as error:
        # The distribution has an extra for each program; the command is there with any of them.
        sys.stderr.write(
            f"reranker-operator: the package {error.name} is missing; "
            "install reranker-operator[operator]\n"
        )
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
