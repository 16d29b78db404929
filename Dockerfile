# d3m_ray with all that it needs, at the versions of requirements.lock: for cluster/rayjob.yaml, or for `docker run`.
#
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" --tag d3m-ray:0.1.0 .
#   docker run --rm --shm-size=2g --volume "$PWD/results:/results" d3m-ray:0.1.0 run planted --store /results/demo
#
# Which torch comes is pip's matter: by itself it takes the build for CUDA, which runs on a CPU too. A pip.conf that names an
# index with torch's builds for the CPU, or for another CUDA, is given to this one build:
#
#   docker build --secret id=pip.conf,src=pip.conf ...
#
# Tested: the files it takes make the package, by the commands below. Never built here: no Docker was at hand.
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim

# KubeRay's probes call wget, Ray's dashboard ps.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/d3m-ray
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY d3m_ray d3m_ray
# Results name the commit. torchvision comes with kronfluence, which does not use it; one that does not fit the torch beside
# it keeps transformers from loading any model.
ARG COMMIT=unknown
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    echo "$COMMIT" >d3m_ray/commit.txt \
    && pip install --no-cache-dir --constraint requirements.lock ".[aws]" \
    && { python -c "import torchvision" 2>/dev/null || pip uninstall --yes torchvision; } \
    && rm -rf /opt/d3m-ray/*

RUN useradd --create-home --uid 1000 ray && mkdir /results && chown ray /results
USER 1000
WORKDIR /home/ray
ENV RAY_USAGE_STATS_ENABLED=0
ENTRYPOINT ["d3m-ray"]
