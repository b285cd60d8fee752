"""The simulated vLLM engine: an HTTP server that speaks the engine's API with latencies from a profile."""
