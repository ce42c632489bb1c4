# Has the shape of NVIDIA's tritonserver image: Triton in /opt/tritonserver, and an environment that
# fits. It holds the embedded Triton, so that server.Dockerfile can be built and run without it.
ARG SERVER=galatea-server-cpu
FROM ${SERVER}
USER root
WORKDIR /opt
RUN mv galatea embedded \
    && mkdir -p tritonserver/bin \
    && cp embedded/lib/python3.11/site-packages/pytriton/tritonserver/bin/tritonserver tritonserver/bin/ \
    && cp -r embedded/cache/galatea/backends-* tritonserver/backends \
    && rm -r tritonserver/backends/bin embedded/cache
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/opt/embedded/lib/python3.11/site-packages/nvidia_pytriton.libs \
    GALATEA_SERVER_SITE=/opt/embedded/lib/python3.11/site-packages \
    TRITON_SERVER_VERSION=2.51.0
ENTRYPOINT []
