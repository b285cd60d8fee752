"""What a worker of a graph means as a `vllm serve` command: arguments, environment, ports."""
