"""Several workers: between any two calls of one the others do theirs."""

from .simulation import Simulation


async def test_nobody_waits_for_the_clock() -> None:
    """What one worker does is told to all whom it concerns: no step needs a second look."""
    sim = Simulation(workers=4)
    for number in range(3):
        sim.create_service(f"rank-{number}", model={"source": f"hf://org/model-{number % 2}"})
    await sim.settle()
    for number in range(3):
        assert sim.condition("Ready", f"rank-{number}") == ("True", "Ready"), number
    sim.edit_service("rank-0", model={"source": "hf://org/third"})
    sim.delete_service("rank-1")
    await sim.settle()
    assert sim.condition("Ready", "rank-0") == ("True", "Ready")
    assert not any("rank-1" in name for name in sim.names("Deployment"))
