# docker build --tag cypd .
# docker run --read-only --cap-drop ALL --volume cypd:/var/lib/cypd --publish 127.0.0.1:5000:5000 cypd
#
# Any Debian-like image with Python 3.11 or newer and its venv module serves as BASE.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
# Where pip gets its packages from, for builds without a way to PyPI; the hashes are those of the
# lock file, wherever they come from.
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /src
COPY requirements.lock .
RUN python3 -m venv /opt/cypd \
    && /opt/cypd/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY cypd cypd
RUN /opt/cypd/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=build /opt/cypd /opt/cypd
# A number, so that Kubernetes sees that it is not root.
RUN install --directory --owner=10000 --group=10000 --mode=700 /var/lib/cypd
USER 10000:10000
ENV CYPD_SERVER_LISTEN=0.0.0.0:5000 CYPD_STORAGE_ROOT=/var/lib/cypd PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/cypd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /var/lib/cypd
# The registry, what it counts (only inside, unless CYPD_SERVER_METRICS_LISTEN says otherwise), TLS.
EXPOSE 5000 5001 5443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["/opt/cypd/bin/cypd", "health"]
ENTRYPOINT ["/opt/cypd/bin/cypd"]
CMD ["serve"]
