"""Manifests for Kubernetes: rendered from ``k8s/``, and checked without a cluster."""
