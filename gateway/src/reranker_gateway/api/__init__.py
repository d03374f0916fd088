"""The HTTP surface: thin façades over `Scorer.score`, in the dialect of NVIDIA's Reranking NIM."""
