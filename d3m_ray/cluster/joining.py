"""Join a Ray cluster, or start one on this machine; one that takes no call of ours is said at once."""

import logging
import os
from collections.abc import Mapping

import grpc
import ray
import ray.job_config
from ray._private.authentication import authentication_token_setup
from ray._private.gcs_utils import create_gcs_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from d3m_ray.cluster.addresses import ANSWER_SECONDS, LOCAL, check_reachable, meant_by
from d3m_ray.waiting import Say, announced

CLIENT_SCHEME = "ray://"  # of an address where a process on the cluster's head makes the driver's calls
TOKEN = "its token, what ray get-auth-token prints on its head, is in ~/.ray/auth_token here"


def join(address: str, say: Say, metadata: Mapping[str, str] | None = None) -> bool:
    """Join the cluster at this address; whether it was started here, for this run. The job has the metadata.

    Raises as `check_reachable`, and ConnectionError where it lets nobody in without its token.
    """
    named, address = meant_by(address)
    check_reachable(named, address)
    if address != LOCAL:
        _take_token()
        _check_token(named, address)
    what = "Ray to start on this machine" if address == LOCAL else f"Ray at {address} to let this process in"
    try:
        with announced(what, say):
            job = ray.job_config.JobConfig(metadata=dict(metadata or {}))
            ray.init(address=address, job_config=job, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare one where a node takes too long to start
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = f"see what listens at {address}, and whether {TOKEN}"
        if address == LOCAL:
            fix = "see RAY_TMPDIR, the folder of its files"
        raise ConnectionError(f"gave up waiting for {what}: {reason}; {fix}") from error
    return address == LOCAL


def _take_token() -> None:
    """Send the token of this user, if there is one, with every call. Ray does so by itself for the address auto alone.

    A cluster that asks for none takes the calls as they are. A RAY_AUTH_MODE that the user has set stands.
    """
    logger = logging.getLogger(authentication_token_setup.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would advise to switch this off
    try:
        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    finally:
        logger.setLevel(level)


def _check_token(named: str, address: str) -> None:
    """Raises ConnectionError where the cluster does not take this user's token. Ray itself would try for 20 seconds.

    Asked of gRPC, which takes a deadline: Ray's own client of a cluster's head waits for minutes, and says nothing,
    where something else answers there. Any other answer is for `ray.init` to deal with.
    """
    if address.startswith(CLIENT_SCHEME):  # speaks another protocol
        return
    question = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined] # generated
    try:
        with create_gcs_channel(address) as channel:
            gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(question, timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            return
        raise ConnectionError(
            f"{named} names a cluster that lets this user in; {address} refuses the token: see that {TOKEN}, "
            f"and that RAY_AUTH_MODE is token or unset (it is {os.environ.get('RAY_AUTH_MODE') or 'unset'})"
        ) from error
