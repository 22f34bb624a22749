# The image of every step of the pipeline. It holds the command line, too, and on test clusters it is MLflow's server.
#
#   docker build -t rlhpo:0.1.0 --build-arg VERSION=0.1.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#
# BASE_IMAGE           has python3, 3.11 or newer, with pip and venv; the same for building and for running.
# TORCH_BUILD          cpu: torch and XGBoost without CUDA. A label such as cu130: that build of torch. default: what the
#                      package index has under the plain version, which on x86-64 is a build for CUDA.
# PIP_INDEX_URL,       read by pip. CPU builds of torch are in an index of their own, which PyTorch's installation page
# PIP_EXTRA_INDEX_URL  names: pass it as the extra one. Without such an index, put the wheel into build/wheels, or into a
#                      folder that --build-context wheels=FOLDER names where Docker knows that option:
#                      pip download --no-deps --dest build/wheels torch==VERSION+cpu
# secret ca            certificates that pip shall trust, where a proxy has its own: --secret id=ca,src=FILE
#
# Run it with any numeric user but 0, the root file system read-only, and /tmp writable.

ARG BASE_IMAGE=python:3.11-slim

# Wheels that need no index. COPY wants one file that certainly exists, hence the lock; the brackets let build be absent.
FROM scratch AS wheels
COPY requirements.lock buil[d]/wheels /


FROM ${BASE_IMAGE} AS build
ARG TORCH_BUILD=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CONSTRAINT=/build/requirements.lock \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_FIND_LINKS=/wheels \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The pip of the base image installs into it, so that it holds no pip itself.
RUN python3 -m venv --without-pip /opt/venv
COPY requirements.lock ./

RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    torch=$(grep '^torch==' requirements.lock); \
    if [ "$TORCH_BUILD" != default ]; then torch="$torch+$TORCH_BUILD"; fi; \
    python3 -m pip --python /opt/venv/bin/python install "$torch" || { \
        echo "no $torch to be had: name an index that has it with --build-arg PIP_EXTRA_INDEX_URL=…," \
            "put the wheel into build/wheels, or choose another --build-arg TORCH_BUILD=…" >&2; \
        exit 1; \
    }

# xgboost-cpu is XGBoost of the same version without its code for GPUs, 700 MB smaller with what that needs. It is given
# the name of xgboost, so that whoever asks for that package, pip and MLflow among them, finds it.
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    if [ "$TORCH_BUILD" != cpu ]; then exit 0; fi; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    version=$(sed -n 's/^xgboost==//p' requirements.lock); \
    python3 -m pip --python /opt/venv/bin/python install "xgboost-cpu==$version"; \
    cd /opt/venv/lib/python3*/site-packages; \
    sed -i 's/^Name: xgboost[-_]cpu$/Name: xgboost/' "xgboost_cpu-$version.dist-info/METADATA"; \
    mv "xgboost_cpu-$version.dist-info" "xgboost-$version.dist-info"

# What rlhpo needs, before rlhpo: it changes less often. psycopg2 is for MLflow's server on PostgreSQL.
COPY pyproject.toml ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -c 'import tomllib; print(*tomllib.load(open(0, "rb"))["project"]["dependencies"], sep="\n")' \
        < pyproject.toml > requirements.txt; \
    python3 -m pip --python /opt/venv/bin/python install --requirement requirements.txt \
        kfp kfp-kubernetes psycopg2-binary

# Tests of other packages, and what only compilers of extensions for torch read: 400 MB.
RUN set -eu; \
    cd /opt/venv/lib/python3*/site-packages; \
    rm -rf torch/test torch/include; \
    find torch/bin -type f ! -name torch_shm_manager -delete; \
    find . -path ./torch -prune -o -type d -name tests -prune -exec rm -rf {} +

COPY README.md LICENSE ./
COPY rlhpo_core ./rlhpo_core
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m pip --python /opt/venv/bin/python install --no-deps .; \
    python3 -m pip --python /opt/venv/bin/python check


FROM ${BASE_IMAGE}
RUN echo 'rlhpo:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'rlhpo:x:65532:' >> /etc/group
# All that is written goes below /tmp. LOGNAME serves users whose number is in no list.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/rlhpo \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=rlhpo \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    MPLCONFIGDIR=/tmp/.config/matplotlib \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true
COPY --from=build /opt/venv /opt/venv
COPY components /opt/rlhpo/components
COPY pipelines /opt/rlhpo/pipelines
WORKDIR /tmp
USER 65532:65532
# No ENTRYPOINT: KFP starts steps with a command of its own.
CMD ["rlhpo", "--help"]
ARG VERSION=unknown
ARG COMMIT=unknown
# Goes into the records of promotions.
ENV RLHPO_CODE_COMMIT=${COMMIT}
LABEL org.opencontainers.image.title="rlhpo" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Hyperparameter tuning by model-based reinforcement learning" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
