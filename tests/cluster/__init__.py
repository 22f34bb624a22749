"""The pipelines on a Kubernetes cluster with KFP, an object store and MLflow: ``make e2e-cluster``.

``RLHPO_CLUSTER`` names a file that says where they are (`places.Addresses`), or is ``here`` for a dry run against a
cluster that is played by this machine. Without it only the tests marked ``quick`` run, and those here.
"""
