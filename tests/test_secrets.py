"""Passwords and keys: what could hold one is refused before anything could show it."""

import json
from pathlib import Path

import pytest

import d3m_ray as d3m
from d3m_ray.commands.engines import about_run
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare
from d3m_ray.rules import without_secret
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # AWS's own example


@pytest.mark.parametrize(
    ("uri", "harmless"),
    [
        (f"s3://AKIAIOSFODNN7EXAMPLE:{KEY}@bucket/name", "s3://***@bucket/name"),
        (
            f"s3://AKIAIOSFODNN7EXAMPLE:{KEY.replace('/', '%2F')}@bucket?region=eu-west-1",
            "s3://***@bucket?region=eu-west-1",
        ),
        (
            f"s3://bucket/name?scheme=http&secret_key={KEY}&region=x",
            "s3://bucket/name?scheme=http&secret_key=***&region=x",
        ),
        (f"gs://bucket/name?access_token={KEY}", "gs://bucket/name?access_token=***"),
        ("https://dapi0123abcd@tracking.example/runs", "https://***@tracking.example/runs"),
        ("https://tracking.example/?api_key=hunter2&sig=hunter2", "https://tracking.example/?api_key=***&sig=***"),
        ("https://me:hunter2@tracking.example:5000/runs", "https://***@tracking.example:5000/runs"),
    ],
)
def test_a_secret_of_a_uri_is_found_whole(uri: str, harmless: str) -> None:
    assert without_secret(uri) == harmless
    assert KEY not in harmless


@pytest.mark.parametrize(
    "uri",
    [
        *("results/demo", "/data/a:b@c", "file:///data/a:b@c", "s3://bucket/name", "s3://bucket/mail@example"),
        "s3://bucket/name?endpoint_override=localhost%3A9000&scheme=http",
        "https://tracking.example/?design=x&author=me",
        *("http://tracking.example:5000/runs@home", "databricks://profile", "sqlite:///runs.db"),
    ],
)
def test_a_uri_without_one_is_as_it_is(uri: str) -> None:
    assert without_secret(uri) is None


@pytest.mark.parametrize("uri", [f"s3://AKIAIOSFODNN7EXAMPLE:{KEY}@bucket/name", f"s3://bucket/name?secret_key={KEY}"])
def test_a_store_with_a_secret_in_its_uri_is_refused_without_saying_it(uri: str) -> None:
    """Else messages, records of runs, logs, a job's metadata and its command line on the dashboard would have it."""
    with pytest.raises(StoreError, match="it holds no secret") as refused:
        Store(uri)
    assert KEY not in str(refused.value)


def test_neither_a_store_nor_what_the_cluster_is_told_has_what_the_environment_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials come by variables: none of these, or their values, enters a record, a log or a job's metadata."""
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, f"{name}-{KEY}")
    config = d3m.ExperimentConfig(
        d3m.Planted(num_train=48, num_val=16, num_test=16),
        model="tiny", methods=("random",), num_removed=(0, 8), seeds=(0,),
        training=d3m.TrainingConfig(num_epochs=1, final_model="last"),
    )  # fmt: skip
    d3m.run(config, tmp_path, engine="local")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"logs", "experiments", "trials"} <= {path.relative_to(tmp_path).parts[0] for path in files}
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    prepared = prepare(config, Store(tmp_path), Progress())
    assert KEY not in json.dumps(about_run(config, prepared.context))
