"""First tables without a GPU: the times of an engine's operators, as aiconfigurator has them, added up."""
