# A server for one exported network: docker build -t neocog .
#
#   docker run --rm --read-only --tmpfs /tmp:size=256m --cap-drop ALL \
#     --security-opt no-new-privileges --cpus 4 --memory 2g --pids-limit 256 --stop-timeout 30 \
#     -p 127.0.0.1:8000:8000 -v "$PWD/runs/digits/export:/models:ro" neocog
#
# serves /models/model.onnx. Name other files or run folders behind the image's name, and repeat
# --host 0.0.0.0: within a container 127.0.0.1 cannot be reached. The container needs to write
# nowhere but to /tmp, which may be small: nothing that a client sends is kept there.
#
# PyTorch is in the image because pictures and answers pass through neocog's own code, which is
# written with it; it is the build for processors, a tenth of the size of the one for GPUs.

FROM python:3.11-slim AS build
ARG EXTRAS=serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/neocog
ENV PATH=/opt/neocog/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
# Of one version the build with a local part, 2.13.0+cpu, is taken before 2.13.0 itself.
RUN pip install --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[${EXTRAS}]" onnxruntime

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin neocog
COPY --from=build /opt/neocog /opt/neocog
ENV PATH=/opt/neocog/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/live', timeout=2)"]
ENTRYPOINT ["neocog", "serve"]
CMD ["/models/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
