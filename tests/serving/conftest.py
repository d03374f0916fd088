"""The real gateway process in front of a Triton that the test holds in its hand."""

from support.gateway_process import engine_dir, sleeper, start_gateway, triton

__all__ = ["engine_dir", "sleeper", "start_gateway", "triton"]
