"""Profiles on Kubernetes: bundled into a ConfigMap, and where a run stands shown in another one."""
