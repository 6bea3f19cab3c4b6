"""One vLLM server: models and GPU machines as data, the backends file, the client, what its answers mean, preflight."""
