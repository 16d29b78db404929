"""What a store in a bucket asks of it: one request a file, few a trial, and none of what was just written."""

import dataclasses
import pickle
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import fs
from small_sweep import SMALL

from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store import remote
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import LocalEngine


@dataclass
class Bucket:
    """A bucket of an S3 server in this process, and what it was asked for since `clear`."""

    options: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request, in order."""
    answers: threading.Event = field(default_factory=threading.Event)
    """Cleared, each request is taken and never answered."""

    def store(self, name: str) -> Store:
        return Store(f"s3://bucket/{name}?{self.options}")

    def of_files(self) -> Counter[tuple[str, str]]:
        """How many requests of each method go to files of each table or folder."""
        named = [(method, re.sub(r"^/bucket/[^/]*/?", "", path).split("/")) for method, path in self.asked]
        return Counter((method, parts[0]) for method, parts in named if len(parts) > 1)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server_module = pytest.importorskip("moto.server", reason="moto[server], of the extra `dev`, is not installed")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *_: object, **__: object) -> None:
            pass

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    application = server_module.DomainDispatcherApplication(server_module.create_backend_app)

    def counted(environment: dict[str, Any], respond: Any) -> Iterable[bytes]:
        bucket.asked.append((environment["REQUEST_METHOD"], environment["PATH_INFO"]))
        bucket.answers.wait()
        return application(environment, respond)  # type: ignore[no-any-return]

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = f"endpoint_override=127.0.0.1%3A{server.port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    bucket = Bucket(options)
    bucket.answers.set()
    try:
        filesystem, _ = fs.FileSystem.from_uri(f"s3://bucket?{options}")
        filesystem.create_dir("bucket")
        bucket.asked.clear()
        yield bucket
    finally:
        bucket.answers.set()
        server.shutdown()
        server.server_close()


def test_a_file_is_written_in_one_request_and_its_absence_is_one_to_forget(bucket: Bucket) -> None:
    store = bucket.store("some")
    rows = pd.DataFrame({"trial_key": "k1", "example_id": [f"train/{number}" for number in range(10_000)]})
    weights = {"head": np.random.default_rng(0).normal(size=500_000).astype(np.float32)}  # 2 MB
    bucket.asked.clear()
    store.write("removals", "k1", rows, {}, "trak")
    store.write_checkpoint("k1", weights)
    store.write_log("ants", "run", b'{"message": "a"}\n')
    assert Counter(method for method, _ in bucket.asked) == {"PUT": 3}
    bucket.asked.clear()
    store.delete_failure("k1", "trak")
    assert [method for method, _ in bucket.asked] == ["HEAD"]
    np.testing.assert_array_equal(store.read_checkpoint("k1")["head"], weights["head"])
    pd.testing.assert_frame_equal(store.read("removals", "k1", "trak"), rows.assign(method="trak"))


@pytest.mark.slow
def test_a_trial_takes_fewer_than_six_requests(bucket: Bucket) -> None:
    """A sweep of three more seeds has 12 more trials of 9 more fits: those of everything serve two each."""

    def requests(name: str, num_seeds: int) -> Counter[tuple[str, str]]:
        bucket.asked.clear()
        config = dataclasses.replace(SMALL, seeds=tuple(range(num_seeds)))
        with Progress() as progress:
            outcome = run_experiment(prepare(config, bucket.store(name), progress), LocalEngine(), progress)
        assert outcome.failed == []
        return bucket.of_files() + Counter({("any", "all"): len(bucket.asked)})

    few, many = requests("few", 1), requests("many", 4)
    more = many - few
    files = {"fits": 9, "removals": 6, "trials": 12}
    assert {folder: more["PUT", folder] for folder in files} == files
    assert [key for key in more if key[1] in ("fits", "removals") and key[0] != "PUT"] == [], "none is read again"
    assert more["any", "all"] < 6 * 12, f"{more['any', 'all'] / 12:.2f} a trial"


def test_a_table_of_a_bucket_is_read_by_its_listing_alone_where_it_has_many_files(bucket: Bucket) -> None:
    """In the order of methods and keys, and without files that are no results."""
    store = bucket.store("some")
    for method in ("trak", "random"):
        for number in range(5):
            key = f"k{number}"
            store.write("removals", key, pd.DataFrame({"trial_key": [key], "example_id": ["a"]}), {}, method)
    root = "bucket/some/removals/method=trak"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://bucket?{bucket.options}")
    for name in ("notes.txt", ".hidden.parquet", "below/k9.parquet"):
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(b"not ours")
    bucket.asked.clear()
    rows = store.read_all("removals")
    assert bucket.of_files()["HEAD", "removals"] == 0
    assert list(zip(rows["method"], rows["trial_key"], strict=True)) == [
        (method, f"k{number}") for method in ("random", "trak") for number in range(5)
    ]
    few = store.read_all("removals", keys={"k1": "trak", "k3": "random"})
    assert few["trial_key"].tolist() == ["k3", "k1"]

    with filesystem.open_output_stream(f"{root}/k8.parquet") as stream:
        stream.write(b"damaged")
    told: list[str] = []
    (compaction,) = store.compact(told.append)
    assert (compaction.num_files, compaction.num_left_out, len(told)) == (10, 1, 1)
    filesystem.delete_file(f"{root}/k8.parquet")
    bucket.asked.clear()
    keys = {f"k{number}": "trak" for number in range(6)}
    pd.testing.assert_frame_equal(store.read_all("removals"), rows)
    pd.testing.assert_frame_equal(store.read_all("removals", keys=keys), rows[5:].reset_index(drop=True))
    assert bucket.of_files()["GET", "removals"] + bucket.of_files()["HEAD", "removals"] == 0


@pytest.mark.slow
def test_a_bucket_that_falls_silent_is_given_up_in_one_line(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker too: a pickle forgets how often is tried."""
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(remote, "MAX_TRIES", 1)
    store = bucket.store("some")
    rows = pd.DataFrame({"trial_key": ["k1"], "example_id": ["a"]})
    store.write("removals", "k1", rows, {}, "trak")
    in_a_worker = pickle.loads(pickle.dumps(store))
    bucket.answers.clear()
    for opened in (store, in_a_worker):
        bucket.asked.clear()
        with pytest.raises(
            StoreError, match=r"cannot be listed \(.*Timeout was reached.*\): see to it, or name"
        ) as told:
            opened.read_all("removals")
        assert "\n" not in str(told.value)
        assert len(bucket.asked) == 1
    with pytest.raises(StoreError, match="cannot be written"):
        store.write("removals", "k2", rows.assign(trial_key="k2"), {}, "trak")
    bucket.answers.set()
    assert store.keys("removals") >= {"k1"}
    assert store.check().is_whole
