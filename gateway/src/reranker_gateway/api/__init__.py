"""The HTTP surface: thin façades over `Scorer.score`, in the dialects of `api.dialects`."""
