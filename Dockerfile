# stream-seg on the CPU:
#   docker build -t stream-seg .
#   docker run --rm --network host -v "$PWD:/data" --user "$(id -u):$(id -g)" stream-seg run clip.mp4 out.mp4
# docs/docker.md says more. Dockerfile.nvidia is the image for an NVIDIA GPU.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/stream-seg && \
    /opt/stream-seg/bin/pip install --no-cache-dir --constraint constraints.txt '.[web,trace]'

FROM python:3.12-slim-bookworm
# The libraries that OpenCV needs, and curl for the health check; their versions are those of the base image.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends curl libgl1 libglib2.0-0 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --create-home --uid 10001 stream && \
    install -d -o stream -g stream /data
COPY --from=build /opt/stream-seg /opt/stream-seg
ENV PATH=/opt/stream-seg/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEALTH_URL=http://127.0.0.1:8080/healthz
USER 10001:10001
WORKDIR /data
# The page at its default port. Without a page: -e HEALTH_URL=http://127.0.0.1:9108/healthz and --metrics-port 9108.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "curl --fail --silent --show-error --insecure $HEALTH_URL || exit 1"]
ENTRYPOINT ["stream-seg"]
CMD ["--help"]
