"""The steps of the pipeline as Kubeflow components, each a thin shim over one function of rlhpo_core.kubeflow.steps."""

#: The image of all components; the pipeline and its users override it at compile time.
IMAGE = "rlhpo:0.1.0"
