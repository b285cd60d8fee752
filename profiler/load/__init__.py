"""Load on an endpoint that speaks the OpenAI API: open loop from a trace, or closed loop, every token counted."""
