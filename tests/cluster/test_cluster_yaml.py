"""cluster.yaml against Ray's schema, EC2's parameter model and, with cluster-account.yaml, simulated AWS."""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.validate import ParamValidator
from cfnlint.api import lint_all
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
NODE_TYPES = CONFIG["available_node_types"]
START_COMMANDS = CONFIG["head_start_ray_commands"] + CONFIG["worker_start_ray_commands"]
SSH_FROM = "203.0.113.7/32"
BUCKET = "a-bucket"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A simulated AWS account with cluster-account.yaml deployed, and a home folder without keys."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {
            "HOME": str(home),
            "TMPDIR": str(home),
            "AWS_ACCESS_KEY_ID": "simulated",
            "AWS_SECRET_ACCESS_KEY": "simulated",
            "AWS_DEFAULT_REGION": CONFIG["provider"]["region"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        values = {"Bucket": BUCKET, "SshFrom": SSH_FROM}
        boto3.client("cloudformation").create_stack(
            StackName="d3m-ray",
            TemplateBody=(ROOT / "cluster-account.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield


@pytest.fixture(scope="module")
def bootstrapped(account: None) -> dict[str, Any]:
    """What `ray up` makes of cluster.yaml before it launches the head."""
    result: dict[str, Any] = _bootstrap_config(copy.deepcopy(CONFIG), no_config_cache=True)
    return result


# --- Ray's schema -----------------------------------------------------------------------------------------------------


def test_ray_takes_it() -> None:
    full = prepare_config(copy.deepcopy(CONFIG))
    validate_config(full)
    for name, node_type in full["available_node_types"].items():  # Ray does not compare these two
        assert node_type["min_workers"] <= node_type["max_workers"] <= full["max_workers"], name


def test_ray_refuses_an_unknown_field() -> None:
    """Else the test above could not fail."""
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**copy.deepcopy(CONFIG), "max_worker": 2}))


def test_no_worker_waits_for_work() -> None:
    workers = {name: node_type for name, node_type in NODE_TYPES.items() if name != CONFIG["head_node_type"]}
    assert workers
    assert all(node_type["min_workers"] == 0 for node_type in workers.values())
    assert CONFIG["idle_timeout_minutes"] > 0
    assert not CONFIG["provider"]["cache_stopped_nodes"]


def test_no_trial_goes_to_the_head() -> None:
    assert NODE_TYPES[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}


# --- what EC2 takes ---------------------------------------------------------------------------------------------------


def _run_instances_errors(node_config: dict[str, Any]) -> str:
    client = boto3.client("ec2", region_name=CONFIG["provider"]["region"])
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    report: str = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
    return report


@pytest.mark.parametrize("name", NODE_TYPES)
def test_ec2_takes_the_node(name: str) -> None:
    node_config = NODE_TYPES[name]["node_config"]
    assert _run_instances_errors(node_config) == ""
    types = boto3.client("ec2", region_name="us-west-2").meta.service_model.shape_for("InstanceType").enum
    assert node_config["InstanceType"] in types


def test_workers_are_spot_machines_and_the_head_is_none() -> None:
    """A lost worker's fits are run again; a lost head would end the sweep. Ray knows of no spot that comes back."""
    market = {name: node_type["node_config"].get("InstanceMarketOptions") for name, node_type in NODE_TYPES.items()}
    assert market.pop("head") is None
    assert [*market.values()] == [{"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}] * len(market)


def test_ec2_refuses_an_unknown_parameter() -> None:
    assert "Imageid" in _run_instances_errors({"Imageid": "ami-1"})


@pytest.mark.parametrize("name", NODE_TYPES)
def test_the_image_fits_any_region_and_is_recent(name: str) -> None:
    image = NODE_TYPES[name]["node_config"]["ImageId"]
    assert image.startswith("resolve:ssm:/aws/service/")
    assert "24.04" in image  # Python 3.12; Ray's own default is Ubuntu 18.04, too old for torch's wheels


def test_the_template_is_well_formed() -> None:
    found = lint_all((ROOT / "cluster-account.yaml").read_text())
    assert [str(match) for match in found if not match.rule.id.startswith("I")] == []  # I: for information


# --- in a simulated account -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bootstrap_fills_in_the_rest(bootstrapped: dict[str, Any]) -> None:
    node_types = bootstrapped["available_node_types"]
    assert node_types["head"]["resources"]["CPU"] == 0
    assert node_types["gpu"]["resources"]["GPU"] == 1
    for node_type in node_types.values():
        assert node_type["node_config"]["KeyName"] == CONFIG["provider"]["key_pair"]["key_name"]
        assert node_type["node_config"]["SubnetIds"]
    assert Path(bootstrapped["auth"]["ssh_private_key"]).name == "d3m-ray.pem"


@pytest.mark.slow
def test_only_ssh_from_one_place_gets_in(bootstrapped: dict[str, Any]) -> None:
    """The group of cluster-account.yaml serves every node, and Ray adds nothing to it."""
    ids = {i for t in bootstrapped["available_node_types"].values() for i in t["node_config"]["SecurityGroupIds"]}
    assert len(ids) == 1
    (group,) = boto3.client("ec2").describe_security_groups(GroupIds=list(ids))["SecurityGroups"]
    assert group["GroupName"] == CONFIG["provider"]["security_group"]["GroupName"]
    from_outside = [
        (rule["FromPort"], rule["ToPort"], block["CidrIp"])
        for rule in group["IpPermissions"]
        for block in rule["IpRanges"]
    ]
    assert from_outside == [(22, 22, SSH_FROM)]
    assert [rule["Ipv6Ranges"] + rule["PrefixListIds"] for rule in group["IpPermissions"]] == [[]] * 2
    sources = {pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]}
    assert sources == ids


def test_the_whole_world_is_no_place_to_connect_from() -> None:
    template = (ROOT / "cluster-account.yaml").read_text()
    (pattern,) = re.findall(r"AllowedPattern: (\S+)", template)
    assert re.fullmatch(pattern, SSH_FROM)
    assert not re.fullmatch(pattern, "0.0.0.0/0")
    assert "CidrIp: !Ref SshFrom" in template
    assert template.count("CidrIp") == 1


@pytest.mark.slow
def test_nodes_may_use_the_bucket(bootstrapped: dict[str, Any]) -> None:
    iam = boto3.client("iam")
    for node_type in bootstrapped["available_node_types"].values():
        profile = iam.get_instance_profile(InstanceProfileName=node_type["node_config"]["IamInstanceProfile"]["Name"])
        (role,) = profile["InstanceProfile"]["Roles"]
        (policy,) = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
        version = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")["PolicyVersion"]
        resources = [statement["Resource"] for statement in version["Document"]["Statement"]]
        assert resources == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NODE_TYPES)
def test_a_node_is_launched(name: str, bootstrapped: dict[str, Any]) -> None:
    provider = AWSNodeProvider(bootstrapped["provider"], bootstrapped["cluster_name"])
    created = provider.create_node(
        bootstrapped["available_node_types"][name]["node_config"], {"ray-node-name": name}, 1
    )
    (instance,) = created.values()
    assert instance.instance_type == NODE_TYPES[name]["node_config"]["InstanceType"]
    assert instance.instance_lifecycle == (None if name == "head" else "spot")
    assert instance.iam_instance_profile["Arn"].endswith("/d3m-ray-head" if name == "head" else "/d3m-ray-worker")
    # The head may end only nodes with this tag.
    assert {"Key": "ray-cluster-name", "Value": CONFIG["cluster_name"]} in instance.tags


# --- what runs on the nodes -------------------------------------------------------------------------------------------


def test_the_dashboard_answers_on_localhost_only() -> None:
    (head_start,) = [command for command in START_COMMANDS if "--head" in command]
    assert re.findall(r"--dashboard-host=(\S+)", head_start) == ["127.0.0.1"]
    assert "--ray-client-server-port" not in head_start
    assert not [command for command in START_COMMANDS if "0.0.0.0" in command]


def test_calls_need_a_token() -> None:
    assert CONFIG["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in CONFIG["setup_commands"])


def test_all_packages_come_from_the_lock() -> None:
    installs = [command for command in CONFIG["setup_commands"] if "pip install" in command]
    assert installs == ['~/venv/bin/pip install -q -c ~/d3m-ray/requirements.lock -e "$HOME/d3m-ray[aws]"']
    assert "ray==2.60." in (ROOT / "requirements.lock").read_text()
    assert not [command for command in CONFIG["setup_commands"] if re.search(r"\b(curl|wget|git)\b", command)]


def test_the_page_says_what_is_preset() -> None:
    page = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
    preset = re.findall(r"D3M_RAY_\w+=\S+", " ".join(CONFIG["setup_commands"]).replace("' >", " >"))
    assert re.findall(r"^\| `(D3M_RAY_\w+=\S+)` \|", page, re.MULTILINE) == preset


@pytest.mark.slow
def test_the_sweeps_use_every_gpu(bootstrapped: dict[str, Any]) -> None:
    from d3m_ray.commands.flags import PRESETS
    from d3m_ray.trials.settings import ExecutionConfig

    given = re.findall(r"D3M_RAY_(\w+)=([\d.]+)", " ".join(CONFIG["setup_commands"]))
    execution = ExecutionConfig(**{name.lower(): PRESETS[name.lower()](value) for name, value in given})
    node = bootstrapped["available_node_types"]["gpu"]
    assert execution.num_workers * execution.gpus_per_worker == node["resources"]["GPU"] * node["max_workers"]
    trials_to_a_gpu = 1 / execution.gpus_per_trial
    assert trials_to_a_gpu * execution.cpus_per_trial <= node["resources"]["CPU"] / node["resources"]["GPU"]


def test_the_mounts_are_an_installation(tmp_path: Path) -> None:
    mounts = {remote: local for remote, local in CONFIG["file_mounts"].items() if remote.startswith("~/d3m-ray/")}
    assert {f"~/d3m-ray/{local}" for local in mounts.values()} == set(mounts)
    assert {"d3m_ray", "pyproject.toml", "requirements.lock"} <= set(mounts.values())
    assert [local for local in mounts.values() if not (ROOT / local).exists()] == []
    for local in mounts.values():
        copy_of = shutil.copytree if (ROOT / local).is_dir() else shutil.copy
        copy_of(ROOT / local, tmp_path / local)
    build = "import hatchling.build; hatchling.build.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    # `ray submit` puts its script into the home folder, which goes before everything else on the path: a folder named
    # d3m_ray there would hide the installed package.
    assert "~/d3m_ray" not in CONFIG["file_mounts"]


def test_results_are_not_excluded_from_coming_back() -> None:
    assert not CONFIG.get("rsync_filter")
    assert CONFIG["rsync_exclude"] == ["__pycache__"]


def test_there_are_three_edits() -> None:
    edits = re.findall(r"EDIT (\d): (?:the|an) (.*?)(?: of| in|\n)", (ROOT / "cluster.yaml").read_text())
    assert edits == [("1", "region"), ("2", "EC2 key"), ("3", "bucket")]


def test_setup_can_be_run_again(tmp_path: Path) -> None:
    """`ray up` repeats the setup commands; the environment they leave must be the same. pip and apt are left out."""
    commands = [c for c in CONFIG["setup_commands"] if "pip" not in c and "apt-get" not in c]
    assert len(commands) == 4
    script = " && ".join(f"({command})" for command in commands * 2) + " && cat .bashrc && . ./.bashrc && env"
    shown = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = shown.stdout.splitlines()
    assert lines.count("source ~/d3m-ray.env") == 1
    assert "D3M_RAY_STORE=s3://YOUR-BUCKET/d3m_ray" in lines
    assert f"PATH={tmp_path}/venv/bin:/usr/bin:/bin" in lines
    assert "RAY_AUTH_MODE=token" in lines


def test_the_lock_names_no_place() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(pins) > 100
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.!+]+( ; .+)?", pin)] == []
    assert "://" not in lock
    assert sys.prefix not in lock
