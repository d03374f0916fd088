"""The gRPC front: KServe's inference protocol, version 2, with the tensors of NVIDIA's NIM.

    server ─▶ service ─▶ uploads: the message, within bounds ─▶ tensors ─▶ the internal `score`

The message definitions come with `tritonclient`.
"""
