"""Addresses: what passes, what is put right, and what is refused with the address that was probably meant."""

from __future__ import annotations

import re

import pytest

from rlhpo_core.addresses import as_mlflow, as_model_name, as_store


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("runs/registry", "runs/registry"),
        ("/data/studies", "/data/studies"),
        ("file:///data/studies", "file:///data/studies"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3a://bucket/prefix", "s3://bucket/prefix"),
        ("s3n://bucket", "s3://bucket"),
        ("S3://bucket", "s3://bucket"),
        ("arn:aws:s3:::bucket/prefix", "s3://bucket/prefix"),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/team/studies",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/team/studies",
        ),
        ("a:b", "a:b"),
    ],
)
def test_places_of_studies(text: str, meant: str) -> None:
    assert as_store(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3:/bucket/x", "did you mean 's3://bucket/x'"),
        ("s3:bucket/x", "did you mean 's3://bucket/x'"),
        ("s3:///bucket", "did you mean 's3://bucket'"),
        ("s3:\\\\bucket\\x", "did you mean 's3://bucket/x'"),
        ("s4://bucket", "a store cannot be at s4://"),
        ("gs://bucket", "a store cannot be at gs://"),
        ("flie:///data", "did you mean 'file:///data'"),
        ("file://data", "did you mean 'file:///data'"),
        ('"s3://bucket"', "write 's3://bucket'"),
        (" s3://bucket\n", "write 's3://bucket'"),
        ("s3://", "names no bucket"),
        ("", "is empty"),
        ("arn:aws:sqs:::queue", "no bucket and no access point"),
    ],
)
def test_what_is_no_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        as_store(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://mlflow:5000",
        "https://mlflow.example/path",
        "sqlite:////data/mlflow.db",
        "sqlite:///mlflow.db",
        "postgresql://u:p@host/db",
        "postgresql+psycopg2://u:p@host:5432/db",
        "mysql+pymysql://host/db",
        "databricks",
        "databricks://profile",
        "file:///data/mlruns",
        "/data/mlruns",
        "azureml://region.api.azureml.ms/mlflow/v1.0/workspace",
        "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/team",
    ],
)
def test_addresses_of_mlflow(text: str) -> None:
    assert as_mlflow(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("htp://mlflow:5000", "did you mean 'http://mlflow:5000'"),
        ("http:/mlflow", "did you mean 'http://mlflow'"),
        ("https:mlflow.example", "did you mean 'https://mlflow.example'"),
        ("mlflow:5000", "did you mean 'http://mlflow:5000'"),
        ("mlflow.example", "did you mean 'http://mlflow.example'"),
        ("sqllite:///mlflow.db", "did you mean 'sqlite:///mlflow.db'"),
        ("sqlite://mlflow.db", "did you mean 'sqlite:///mlflow.db'"),
        ("http://", "names no server"),
        ("'http://mlflow'", "quotes or blanks"),
        ("mlruns", "is no address of MLflow"),
    ],
)
def test_what_is_no_address_of_mlflow(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        as_mlflow(text)


@pytest.mark.parametrize(
    ("name", "character"), [("team/churn", "'/'"), ("a:b", "':'"), ("a@b", "'@'"), ("a\nb", "'\\n'")]
)
def test_names_that_the_registry_does_not_take(name: str, character: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"it holds {character}")):
        as_model_name(name)


def test_names_that_it_takes() -> None:
    assert [as_model_name(name) for name in ("churn", "churn model", "catalog.schema.churn")]
    for name in ("", " churn", "x" * 300):
        with pytest.raises(ValueError, match="1 to 256 characters"):
            as_model_name(name)
