"""What one call of an engine may look like."""

from reranker_contracts import Profile, Shapes

#: Padded tokens in one batch.
_TOKEN_BUDGET = 8192
#: Longest row of the first profiles; from the last one on they double up to the model's limit.
_BUCKETS = (64, 128, 256, 512)


def dynamic_shapes(max_length: int, max_batch_size: int) -> Shapes:
    """For runtimes that take any shape as it comes: a budget that one longest row always fits."""
    return Shapes(
        max_batch_size=max_batch_size,
        max_length=max_length,
        token_budget=max(_TOKEN_BUDGET, max_length),
    )


def profiled_shapes(max_length: int, max_batch_size: int) -> Shapes:
    """With profiles by length, of which each batch within budget and rows fits one.

    A profile's rows are as many as its *shortest* input leaves room for, so that its largest input
    is less than twice the budget.
    """
    shapes = dynamic_shapes(max_length, max_batch_size)
    profiles, shortest = [], 1
    for longest in _bucket_ends(max_length):
        rows = min(max_batch_size, max(1, shapes.token_budget // shortest))
        profiles.append(Profile(max_batch_size=rows, max_length=longest))
        shortest = longest + 1
    return shapes.model_copy(update={"profiles": tuple(profiles)})


def usual_rows(shapes: Shapes, profile: Profile) -> int:
    """Rows of a full batch of the profile's longest inputs."""
    return max(1, min(profile.max_batch_size, shapes.token_budget // profile.max_length))


def _bucket_ends(max_length: int) -> list[int]:
    ends = [end for end in _BUCKETS if end < max_length]
    while ends and ends[-1] >= _BUCKETS[-1] and ends[-1] * 2 < max_length:
        ends.append(ends[-1] * 2)
    return [*ends, max_length]
