"""What the pods of a pipeline do, as functions from files to files; components/ wraps each for Kubeflow."""
