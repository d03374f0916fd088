"""`python -m reranker_operator`."""

from reranker_operator.main import main

main()
