# monai-unetpp on a CPU, with everything that the demonstration needs. In a clone:
#
#   docker build -t monai-unetpp .
#   docker run --rm -v "$PWD":/data monai-unetpp segment image.nii.gz --bundle hippocampus_mri_unetpp -o segmentations
#
# It was checked with hadolint, not built: that needs an engine for containers. The user is no root: where the folder that you
# mount is not open to user 1000, add --user "$(id -u):$(id -g)".
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /opt/monai-unetpp
COPY constraints.txt ./
# torch first: its own index has the one for CPUs, which pip prefers to the one with gigabytes of CUDA libraries
RUN pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch

COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY bundles bundles
COPY monai_unetpp monai_unetpp
RUN pip install -c constraints.txt ".[demo,report,export,instances]" \
    && useradd --create-home --uid 1000 unetpp \
    && mkdir -p /data /cache \
    && chmod 1777 /data /cache

# matplotlib and the converted networks keep files there, whoever runs it
ENV HOME=/cache XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache
USER 1000
WORKDIR /data
ENTRYPOINT ["monai-unetpp"]
CMD ["--help"]
