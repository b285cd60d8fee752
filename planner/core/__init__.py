"""The pure half: no I/O, no clock, no globals. The pod, a replay and the tests run this very code."""
