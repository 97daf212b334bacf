# coldbench with the versions of requirements.lock. GPUs work with `--gpus all`: the packages bring CUDA with them.
#
#   make image       (or: docker build -t coldbench .)
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/checkout" coldbench snakemake
FROM python:3.11-slim-bookworm

# torch.compile and Triton compile with g++; git tells the commit of a mounted checkout, whoever owns it
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ git \
 && rm -rf /var/lib/apt/lists/* \
 && git config --system safe.directory '*'

COPY requirements.lock /opt/coldbench/
RUN python -m pip install --no-cache-dir --compile --require-hashes -r /opt/coldbench/requirements.lock

# the build tool is one of the pins, so nothing is resolved here
COPY pyproject.toml README.md LICENSE /opt/coldbench/
COPY coldbench /opt/coldbench/coldbench
RUN python -m pip install --no-cache-dir --compile --no-deps --no-build-isolation /opt/coldbench

# any user: a home that can be written into, a name for users without one, and nothing from a mounted home's packages
ENV HOME=/tmp LOGNAME=coldbench PYTHONNOUSERSITE=1
WORKDIR /checkout
CMD ["coldbench", "--help"]
