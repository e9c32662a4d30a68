# syntax=docker/dockerfile:1
# ComfyUI with the agent in front of it.
#
#   docker build -t comfyui .                                   ComfyUI as pinned below
#   docker build -t comfyui --build-arg BASE_IMAGE=mine:1 .     added to an image that has ComfyUI
#
# The second form needs COMFYUI_DIR if ComfyUI lies elsewhere than in /comfyui, and a glibc of 2.34 or
# newer (Ubuntu 22.04, Debian 12). Models, custom nodes, inputs and outputs come from the NAS: the
# folders in LINKS become links to it, what the base image has in them is not seen any more. Leave
# one out (--build-arg LINKS="models input output") to keep the image's. Nothing is copied at start.
ARG BASE_IMAGE=comfyui

FROM debian:12.11-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Debian's stable release is the pin; its packages change for security only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        gcc libc6-dev make cmake ninja-build pkg-config \
        libuv1-dev libwslay-dev node-llhttp nettle-dev libcurl4-openssl-dev libhiredis-dev libmariadb-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cmake --preset release -DBUILD_TESTING=OFF \
    && cmake --build --preset release \
    && cmake --install build/release --strip --prefix /opt/comfy-agent

FROM pytorch/pytorch:2.7.1-cuda12.6-cudnn9-runtime AS comfyui
ARG COMFYUI=v0.3.76
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git ffmpeg libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
RUN git clone --quiet --depth 1 --branch "$COMFYUI" https://github.com/comfyanonymous/ComfyUI.git /comfyui \
    && rm -rf /comfyui/.git \
    && pip install --no-cache-dir -r /comfyui/requirements.txt

# BASE_IMAGE is another image, or the stage above.
# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG COMFYUI_DIR=/comfyui
ARG NAS_DIR=/mnt/auto/comfyui
ARG LINKS="models custom_nodes input output"
COPY --from=build /opt/comfy-agent /opt/comfy-agent
RUN test -f "$COMFYUI_DIR/main.py" \
    && /opt/comfy-agent/comfy-agent --version \
    && for name in $LINKS; do \
        rm -rf "${COMFYUI_DIR:?}/$name" && ln -s "$NAS_DIR/$name" "$COMFYUI_DIR/$name" || exit 1; \
    done
ENV COMFYUI_DIR=${COMFYUI_DIR} \
    NAS_DIR=${NAS_DIR} \
    USE_AGENT=1
EXPOSE 9000
STOPSIGNAL SIGTERM
# Any answer but a 5xx will do: with USE_AGENT=0 it is ComfyUI that answers, and knows no /healthz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python3", "-c", \
    "import http.client, os; at = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('FC_CUSTOM_LISTEN_PORT') or os.environ.get('FC_SERVER_PORT') or 9000), timeout=2); at.request('GET', '/healthz'); raise SystemExit(at.getresponse().status >= 500)"]
# It becomes the agent (exec), which is process 1 then: it passes signals on and buries orphans.
ENTRYPOINT ["/opt/comfy-agent/bootstrap"]
