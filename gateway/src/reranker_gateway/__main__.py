"""`python -m reranker_gateway`."""

from reranker_gateway.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
